//! Windows that slide over maps: the output sizes of convolutions and pools.

use super::fields::{Padding, Pair, Sides};
use super::infer::map;
use crate::Invalid;
use crate::tensor::TensorShape;

/// The largest padding, as large as the largest map. More is a mistake, and would cost memory.
const MAX_PADDING: u32 = 1 << 14;

/// A window that slides over a map.
pub(super) struct Window {
    pub(super) kernel: Pair<u32>,
    pub(super) stride: Pair<u32>,
    pub(super) dilation: Pair<u32>,
    pub(super) sides: Sides,
    pub(super) ceil: bool,
}

impl Window {
    /// The map of the places of the window.
    pub(super) fn slide(&self, input: TensorShape) -> Result<TensorShape, Invalid> {
        let (n, c, h, w) = map(input)?;
        let [rows, columns] = self.along();
        match (rows.places(h), columns.places(w)) {
            (Some(h), Some(w)) => Ok(TensorShape::Map { n, c, h, w }),
            _ => Err(Invalid::here(format!(
                "a window of {} (dilation {}, padding {}) does not fit an input of {h}x{w}",
                self.kernel, self.dilation, self.sides
            ))),
        }
    }

    fn along(&self) -> [Along; 2] {
        let Window { kernel, stride, dilation, sides, ceil } = *self;
        [
            Along::new(reach(kernel.h, dilation.h), stride.h, [sides.top, sides.bottom], ceil),
            Along::new(reach(kernel.w, dilation.w), stride.w, [sides.left, sides.right], ceil),
        ]
    }
}

/// The extent of a kernel along one dimension.
pub(super) fn reach(kernel: u32, dilation: u32) -> u64 {
    u64::from(dilation) * u64::from(kernel - 1) + 1
}

/// A window along one dimension.
pub(super) struct Along {
    pub(super) reach: u64,
    pub(super) stride: u32,
    /// Of both sides together.
    pub(super) padding: u64,
    pub(super) before: u32,
    pub(super) ceil: bool,
}

impl Along {
    pub(super) fn new(reach: u64, stride: u32, [before, after]: [u32; 2], ceil: bool) -> Along {
        Along { reach, stride, padding: u64::from(before) + u64::from(after), before, ceil }
    }

    /// `floor((size + padding - dilation (kernel - 1) - 1) / stride) + 1`, as in the documentation of
    /// `torch.nn.Conv2d`. With `ceil`, the division rounds up, and a last window that would start beyond the map and
    /// its first padding is left out, as in the documentation of `torch.nn.MaxPool2d`.
    pub(super) fn places(&self, size: u32) -> Option<u32> {
        let stride = u64::from(self.stride);
        let slack = if self.ceil { stride - 1 } else { 0 };
        let span = (u64::from(size) + self.padding + slack).checked_sub(self.reach)?;
        let places = span / stride + 1;
        let starts_outside = (places - 1) * stride >= u64::from(size) + u64::from(self.before);
        let places = if self.ceil && starts_outside { places - 1 } else { places };
        u32::try_from(places).ok().filter(|&places| places > 0)
    }
}

/// The padding of a window in numbers, for an input of the given height and width.
pub(super) fn resolved(
    padding: Option<Padding>,
    kernel: Pair<u32>,
    stride: Pair<u32>,
    dilation: Pair<u32>,
    input: TensorShape,
) -> Result<Sides, Invalid> {
    for size in dilation.parts() {
        check_factor("dilation", size)?;
    }
    match padding {
        Some(Padding::Sides(sides)) => sides.checked(),
        None => {
            let half = |kernel, dilation| checked_padding((reach(kernel, dilation) - 1) / 2);
            Ok(Sides::symmetric(half(kernel.h, dilation.h)?, half(kernel.w, dilation.w)?))
        }
        Some(Padding::Same) => {
            let (_, _, h, w) = map(input)?;
            let [top, bottom] = halves(missing(h, reach(kernel.h, dilation.h), stride.h))?;
            let [left, right] = halves(missing(w, reach(kernel.w, dilation.w), stride.w))?;
            Ok(Sides { top, bottom, left, right })
        }
    }
}

/// What `ceil(size / stride)` windows reach beyond the map.
fn missing(size: u32, reach: u64, stride: u32) -> u64 {
    let places = u64::from(size.div_ceil(stride));
    ((places - 1) * u64::from(stride) + reach).saturating_sub(u64::from(size))
}

/// Half before and half after; an odd one out after.
fn halves(total: u64) -> Result<[u32; 2], Invalid> {
    Ok([checked_padding(total / 2)?, checked_padding(total - total / 2)?])
}

/// The padding of one side, if it is not too large.
pub(super) fn checked_padding(padding: u64) -> Result<u32, Invalid> {
    match u32::try_from(padding) {
        Ok(small) if small <= MAX_PADDING => Ok(small),
        _ => Err(Invalid::here(format!("a padding of {padding} is too large"))),
    }
}

/// The window of a transposed convolution: what the output of a convolution with this window grows to.
pub(super) struct Grown {
    pub(super) kernel: Pair<u32>,
    pub(super) stride: Pair<u32>,
    pub(super) dilation: Pair<u32>,
    pub(super) output_padding: Pair<u32>,
}

impl Grown {
    /// What is cut off the output, in numbers.
    pub(super) fn resolved(&self, padding: Option<Padding>) -> Result<Sides, Invalid> {
        let Grown { kernel, stride, dilation, output_padding } = *self;
        for (added, stride, dilation) in
            [(output_padding.h, stride.h, dilation.h), (output_padding.w, stride.w, dilation.w)]
        {
            check_factor("dilation", dilation)?;
            if added > 0 && added >= stride.max(dilation) {
                return Err(Invalid::here(format!(
                    "output_padding {added} is not smaller than the stride {stride} or the dilation \
                     {dilation}"
                )));
            }
        }
        match padding {
            Some(Padding::Sides(sides)) => sides.checked(),
            None => {
                let half = |kernel, dilation| checked_padding((reach(kernel, dilation) - 1) / 2);
                Ok(Sides::symmetric(half(kernel.h, dilation.h)?, half(kernel.w, dilation.w)?))
            }
            Some(Padding::Same) => {
                let cut = |kernel, dilation, added: u32, stride: u32| {
                    let reached = reach(kernel, dilation) + u64::from(added);
                    let beyond = reached.checked_sub(stride.into()).ok_or_else(|| {
                        Invalid::here(format!(
                            "a window of {kernel} is too small for an output of {stride} times the \
                             size: give it an output_padding of {}",
                            u64::from(stride) - reached
                        ))
                    });
                    halves(beyond?)
                };
                let [top, bottom] = cut(kernel.h, dilation.h, output_padding.h, stride.h)?;
                let [left, right] = cut(kernel.w, dilation.w, output_padding.w, stride.w)?;
                Ok(Sides { top, bottom, left, right })
            }
        }
    }

    /// The output for an input, by the formula of `torch.nn.ConvTranspose2d`.
    pub(super) fn output(&self, sides: Sides, input: TensorShape) -> Result<TensorShape, Invalid> {
        let Grown { kernel, stride, dilation, output_padding } = *self;
        let (n, c, h, w) = map(input)?;
        let grown = |size: u32, stride: u32, reach: u64, added: u32, cut: [u32; 2]| {
            let whole = u64::from(size - 1) * u64::from(stride) + reach + u64::from(added);
            let left = whole.checked_sub(cut.into_iter().map(u64::from).sum());
            left.filter(|&left| left > 0).and_then(|left| u32::try_from(left).ok()).ok_or_else(
                || Invalid::here(format!("padding {sides} leaves nothing of an output of {whole}")),
            )
        };
        let cut = [sides.top, sides.bottom];
        let h = grown(h, stride.h, reach(kernel.h, dilation.h), output_padding.h, cut)?;
        let cut = [sides.left, sides.right];
        let w = grown(w, stride.w, reach(kernel.w, dilation.w), output_padding.w, cut)?;
        Ok(TensorShape::Map { n, c, h, w })
    }
}

pub(super) fn check_factor(what: &str, value: u32) -> Result<(), Invalid> {
    if (1..=1024).contains(&value) {
        return Ok(());
    }
    Err(Invalid::here(format!("{what} is {value}; it lies between 1 and 1024")))
}

/// The output of a pool. libtorch refuses a padding of more than half of the window.
pub(super) fn pooled(window: &Window, input: TensorShape) -> Result<TensorShape, Invalid> {
    let Sides { top, bottom, left, right } = window.sides;
    for (padding, kernel) in [
        (top, window.kernel.h),
        (bottom, window.kernel.h),
        (left, window.kernel.w),
        (right, window.kernel.w),
    ] {
        if padding > kernel / 2 {
            return Err(Invalid::here(format!(
                "padding {padding} is more than half of the window {kernel}"
            )));
        }
    }
    window.slide(input)?.checked()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn along(kernel: u32, stride: u32, ends: [u32; 2], dilation: u32) -> Along {
        Along::new(reach(kernel, dilation), stride, ends, false)
    }

    #[test]
    fn windows_are_counted_as_torch_counts_them() {
        for (size, kernel, stride, padding, dilation, expected) in [
            (224, 3, 2, [1, 1], 1, Some(112)),
            (7, 2, 2, [0, 0], 1, Some(3)),
            (5, 3, 1, [2, 2], 2, Some(5)),
            (2, 3, 1, [0, 0], 1, None),
            (1, 2, 2, [0, 0], 1, None),
            // TensorFlow's SAME at stride 2.
            (224, 3, 2, [0, 1], 1, Some(112)),
        ] {
            let places = along(kernel, stride, padding, dilation).places(size);
            assert_eq!(places, expected, "{size} {kernel} {stride}");
        }
        let ceil = |size, kernel, stride, padding| {
            Along { ceil: true, ..along(kernel, stride, [padding; 2], 1) }.places(size)
        };
        // Reported sizes (tt-metal #15039, DenseNet-Caffe #20), and windows that start in the padding.
        assert_eq!(ceil(54, 3, 2, 0), Some(27));
        assert_eq!((ceil(80, 2, 2, 0), ceil(200, 2, 2, 0)), (Some(40), Some(100)));
        assert_eq!((ceil(2, 3, 2, 0), ceil(1, 3, 2, 0)), (Some(1), None));
        assert_eq!((ceil(3, 2, 3, 1), ceil(4, 1, 3, 0)), (Some(2), Some(2)));
    }

    proptest! {
        /// Counted the slow way: a place is a start from which the whole window lies on the padded map.
        #[test]
        fn a_window_is_placed_wherever_it_fits(
            size in 1u32..40, kernel in 1u32..8, stride in 1u32..5, before in 0u32..4, after in 0u32..4,
            dilation in 1u32..4,
        ) {
            let padded = size + before + after;
            let starts = (0..padded).step_by(stride as usize);
            let counted = starts.filter(|start| start + dilation * (kernel - 1) < padded).count();
            let places = along(kernel, stride, [before, after], dilation).places(size);
            prop_assert_eq!(places.unwrap_or(0) as usize, counted);
        }

        /// With `ceil_mode`, every element that a window can reach is in one, and every window starts on the map or its
        /// first padding.
        #[test]
        fn ceil_mode_leaves_nothing_out(size in 1u32..40, kernel in 1u32..8, stride in 1u32..5, padding in 0u32..4) {
            prop_assume!(padding <= kernel / 2);
            let window = Along { ceil: true, ..along(kernel, stride, [padding; 2], 1) };
            let floor = along(kernel, stride, [padding; 2], 1).places(size).unwrap_or(0);
            if let Some(places) = window.places(size) {
                prop_assert!(places == floor || places == floor + 1);
                prop_assert!((places - 1) * stride < size + padding);
                let covered = (places - 1) * stride + kernel >= size + 2 * padding;
                prop_assert!(covered || places * stride >= size + padding);
            }
        }

        /// A transposed convolution undoes the size of the convolution with the same window: what grew shrinks back.
        #[test]
        fn what_grew_shrinks_back(
            size in 1u32..60, kernel in 1u32..8, stride in 1u32..5, dilation in 1u32..4, added in 0u32..4,
            (top, bottom) in (0u32..4, 0u32..4),
        ) {
            let pair = Pair::square;
            prop_assume!(added < stride.max(dilation));
            let grown = Grown {
                kernel: pair(kernel), stride: pair(stride), dilation: pair(dilation), output_padding: pair(added),
            };
            let input = TensorShape::Map { n: 1, c: 1, h: size, w: size };
            let sides = Sides { top, bottom, left: top, right: bottom };
            let Ok(TensorShape::Map { h, .. }) = grown.output(sides, input) else { return Ok(()) };
            if added < stride {
                prop_assert_eq!(along(kernel, stride, [top, bottom], dilation).places(h), Some(size));
            }
            if let Ok(sides) = grown.resolved(Some(Padding::Same)) {
                let output = grown.output(sides, input).unwrap();
                prop_assert_eq!(output, TensorShape::Map { n: 1, c: 1, h: size * stride, w: size * stride });
            }
        }

        /// SAME gives `ceil(size / stride)` places, and no side is more than one larger than the other.
        #[test]
        fn same_gives_the_size_divided_by_the_stride(
            size in 1u32..300, kernel in 1u32..12, stride in 1u32..6, dilation in 1u32..4,
        ) {
            let pair = Pair::square;
            let input = TensorShape::Map { n: 1, c: 1, h: size, w: size };
            let sides = resolved(Some(Padding::Same), pair(kernel), pair(stride), pair(dilation), input).unwrap();
            let (before, after) = (sides.top, sides.bottom);
            prop_assert!(after == before || after == before + 1);
            let places = along(kernel, stride, [before, after], dilation).places(size);
            prop_assert_eq!(places, Some(size.div_ceil(stride)));
        }
    }
}
