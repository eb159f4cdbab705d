//! Padding, and pools.

use ops_catalog::{Padding, Pair, Primitive, Sides, Step, TensorShape};

use super::dense::{pads, pair};
use super::map_dims;
use crate::builder::{Builder, int, ints};
use crate::model::Value;

/// A map with the same value around it.
pub(super) fn pad(x: &Value, sides: Sides, value: f64, b: &mut Builder) -> Value {
    let [top, left, bottom, right] = pads(Some(Padding::Sides(sides)));
    pad_by(x, [top, left, bottom, right], value, b)
}

/// [`pad`] by a number of rows and columns in ONNX's order.
pub(super) fn pad_by(x: &Value, pads: [i64; 4], value: f64, b: &mut Builder) -> Value {
    let [top, left, bottom, right] = pads;
    let pads = b.integers(&[0, 0, top, left, 0, 0, bottom, right]);
    let value = b.number(value);
    b.node("Pad", &[x, &pads, &value], [])
}

/// A pool's window on a map.
struct Window {
    kernel: [i64; 2],
    stride: [i64; 2],
    dilation: [i64; 2],
    /// In ONNX's order.
    pads: [i64; 4],
    /// How far the last windows reach beyond the padded map.
    beyond: [i64; 2],
}

impl Window {
    /// Runtimes differ in how they count windows with `ceil_mode`, so the last windows get as much padding as they need.
    fn new(
        [kernel, stride, dilation]: [Pair<u32>; 3],
        padding: Option<Padding>,
        shape: TensorShape,
        step: &Step,
    ) -> Window {
        let [kernel, stride, dilation] = [kernel, stride, dilation].map(pair);
        let pads = pads(padding);
        let ([_, _, h, w], [_, _, rows, columns]) = (map_dims(shape), map_dims(step.outputs[0]));
        let beyond = |dim: usize, size: i64, places: i64| {
            let reach = dilation[dim] * (kernel[dim] - 1) + 1;
            let end = (places - 1) * stride[dim] + reach;
            (end - size - pads[dim] - pads[dim + 2]).max(0)
        };
        let beyond = [beyond(0, h, rows), beyond(1, w, columns)];
        Window { kernel, stride, dilation, pads, beyond }
    }

    /// All padding, with what the last windows need.
    fn all_pads(&self) -> [i64; 4] {
        let [top, left, bottom, right] = self.pads;
        [top, left, bottom + self.beyond[0], right + self.beyond[1]]
    }
}

pub(super) fn max_pool(step: &Step, x: &Value, shape: TensorShape, b: &mut Builder) -> Value {
    let Primitive::MaxPool { kernel, stride, dilation, padding, .. } = step.primitive else {
        unreachable!("the caller has a pool")
    };
    let window = Window::new([kernel, stride, dilation], padding, shape, step);
    let mut pads = window.all_pads();
    let mut x = x.clone();
    // Runtimes refuse padding that is as large as the kernel.
    if (0..4).any(|side| pads[side] >= window.kernel[side % 2]) {
        x = pad_by(&x, pads, f64::NEG_INFINITY, b);
        pads = [0; 4];
    }
    let attributes = [
        ints("kernel_shape", window.kernel),
        ints("strides", window.stride),
        ints("dilations", window.dilation),
        ints("pads", pads),
    ];
    b.node("MaxPool", &[&x], attributes)
}

pub(super) fn avg_pool(step: &Step, x: &Value, shape: TensorShape, b: &mut Builder) -> Value {
    let Primitive::AvgPool { kernel, stride, padding, count_include_pad, .. } = step.primitive
    else {
        unreachable!("the caller has a pool")
    };
    let window = Window::new([kernel, stride, Pair::square(1)], padding, shape, step);
    let mut pads = window.all_pads();
    let mut x = x.clone();
    let mut include = i64::from(count_include_pad);
    // What lies beyond the padded map never counts in the mean, so padding that counts becomes a part of the map.
    if count_include_pad && window.beyond != [0, 0] {
        if window.pads != [0; 4] {
            x = pad_by(&x, window.pads, 0.0, b);
        }
        pads = [0, 0, window.beyond[0], window.beyond[1]];
        include = 0;
    }
    let attributes = [
        ints("kernel_shape", window.kernel),
        ints("strides", window.stride),
        ints("pads", pads),
        int("count_include_pad", include),
    ];
    b.node("AveragePool", &[&x], attributes)
}

/// First element of window `index` of `count` windows over `size` elements, and the first one after it.
fn adaptive(index: i64, count: i64, size: i64) -> [i64; 2] {
    [index * size / count, ((index + 1) * size + count - 1) / count]
}

/// A pool with windows of one size, if they are.
fn regular(
    operator: &'static str,
    x: &Value,
    [h, w]: [i64; 2],
    [rows, columns]: [i64; 2],
    b: &mut Builder,
) -> Option<Value> {
    if h % rows != 0 || w % columns != 0 {
        return None;
    }
    let window = [h / rows, w / columns];
    Some(b.node(operator, &[x], [ints("kernel_shape", window), ints("strides", window)]))
}

/// Means over windows along both dimensions are two products with matrices of shares.
pub(super) fn adaptive_avg_pool(
    size: Pair<u32>,
    x: &Value,
    shape: TensorShape,
    b: &mut Builder,
) -> Value {
    let [_, _, h, w] = map_dims(shape);
    let [rows, columns] = pair(size);
    if [rows, columns] == [1, 1] {
        return b.unary("GlobalAveragePool", x);
    }
    if let Some(pooled) = regular("AveragePool", x, [h, w], [rows, columns], b) {
        return pooled;
    }
    let share = |element: i64, index: i64, count: i64, size: i64| {
        let [first, end] = adaptive(index, count, size);
        if (first..end).contains(&element) { 1.0 / (end - first) as f32 } else { 0.0 }
    };
    let down = b.numbers(&[rows, h], move |place| share(place % h, place / h, rows, h));
    let across =
        b.numbers(&[w, columns], move |place| share(place / columns, place % columns, columns, w));
    let fewer_rows = b.binary("MatMul", &down, x);
    b.binary("MatMul", &fewer_rows, &across)
}

/// Elements of each window along one dimension, the last one repeated where a window is shorter, and their maximum.
pub(super) fn adaptive_max_pool(
    size: Pair<u32>,
    x: &Value,
    shape: TensorShape,
    b: &mut Builder,
) -> Value {
    let [_, _, h, w] = map_dims(shape);
    let counts = pair(size);
    if let Some(pooled) = regular("MaxPool", x, [h, w], counts, b) {
        return pooled;
    }
    let mut pooled = x.clone();
    for (axis, size, count) in [(2, h, counts[0]), (3, w, counts[1])] {
        let length = |index: i64| {
            let [first, end] = adaptive(index, count, size);
            end - first
        };
        let longest = (0..count).map(length).max().unwrap_or(1);
        let elements = b.indices(&[count, longest], move |place| {
            let [first, end] = adaptive(place / longest, count, size);
            (first + place % longest).min(end - 1)
        });
        let windows = b.node("Gather", &[&pooled, &elements], [int("axis", axis)]);
        let attributes = [ints("axes", [axis + 1]), int("keepdims", 0)];
        pooled = b.node("ReduceMax", &[&windows], attributes);
    }
    pooled
}

pub(super) fn global_avg_pool(
    step: &Step,
    x: &Value,
    shape: TensorShape,
    b: &mut Builder,
) -> Value {
    match shape {
        TensorShape::Map { .. } => b.unary("GlobalAveragePool", x),
        TensorShape::Tokens { .. } => {
            let mean = b.node("ReduceMean", &[x], [ints("axes", [1]), int("keepdims", 0)]);
            b.reshape_to(&mean, &step.outputs[0].dims())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adaptive_windows_cover_the_map() {
        let windows = |count: i64, size: i64| -> Vec<[i64; 2]> {
            (0..count).map(|index| adaptive(index, count, size)).collect()
        };
        assert_eq!(windows(3, 8), [[0, 3], [2, 6], [5, 8]]);
        assert_eq!(windows(4, 8), [[0, 2], [2, 4], [4, 6], [6, 8]]);
        assert_eq!(windows(3, 2), [[0, 1], [0, 2], [1, 2]]);
    }
}
