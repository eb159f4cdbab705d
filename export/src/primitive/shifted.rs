//! Attention inside the windows of a map.

use ops_catalog::{Init, Primitive, ShiftedWindows, Step, TensorShape};

use super::attention::over_tokens;
use super::windows::pad_by;
use super::{concat, map_dims};
use crate::builder::{Builder, int};
use crate::model::Value;

pub(super) fn window_attention(
    step: &Step,
    x: &Value,
    shape: TensorShape,
    b: &mut Builder,
) -> Value {
    let Primitive::WindowAttention { heads, window, shift, grid, position_bias, cosine } =
        step.primitive
    else {
        unreachable!("the caller has window attention")
    };
    let (heads, [n, c, h, w]) = (i64::from(heads), map_dims(shape));
    let windows = ShiftedWindows::new([h, w], window.into(), shift.into(), grid);
    let (count, places) = (windows.count(), windows.places());
    let bias = position_bias.then(|| bias(&windows, heads, b));
    let tokens = partition(&windows, x, [n, c], b);
    let adjust = |scores: Value, b: &mut Builder| {
        if windows.shift == [0, 0] {
            return match &bias {
                Some(bias) => b.binary("Add", &scores, bias),
                None => scores,
            };
        }
        let unseen = mask(&windows, b);
        let bias = match &bias {
            Some(bias) => b.binary("Add", bias, &unseen),
            None => unseen,
        };
        let by_image = b.reshape(&scores, [n, count, heads, places, places]);
        let biased = b.binary("Add", &by_image, &bias);
        b.reshape(&biased, [n * count, heads, places, places])
    };
    let mixed = over_tokens((heads, cosine), &tokens, [n * count, places, c], adjust, b);
    join(&windows, &mixed, [n, c], b)
}

/// The learned bias of each head and relative position, `[1, heads, places, places]`.
fn bias(windows: &ShiftedWindows, heads: i64, b: &mut Builder) -> Value {
    let places = windows.places();
    let init = Init::Normal { deviation: 0.02 };
    let table = b.weight("positions", &[windows.offsets(), heads], init);
    let windows = *windows;
    let rows =
        b.indices(&[places * places], move |pair| windows.offset(pair / places, pair % places));
    let gathered = b.node("Gather", &[&table, &rows], [int("axis", 0)]);
    let pairs = b.reshape(&gathered, [1, places, places, heads]);
    b.transpose(&pairs, [0, 3, 1, 2])
}

/// What is added to the scores of each window, `[windows, 1, places, places]`: places that came together only through
/// the shift do not see each other.
fn mask(windows: &ShiftedWindows, b: &mut Builder) -> Value {
    let (windows, places) = (*windows, windows.places());
    b.numbers(&[windows.count(), 1, places, places], move |place| {
        let (window, pair) = (place / (places * places), place % (places * places));
        if windows.see_each_other(window, pair / places, pair % places) { 0.0 } else { -100.0 }
    })
}

/// `[n, c, h, w]` as `[n * windows, places, c]`.
fn partition(windows: &ShiftedWindows, x: &Value, [n, c]: [i64; 2], b: &mut Builder) -> Value {
    let ShiftedWindows { side, map, padded: [h, w], shift, grid } = *windows;
    let mut x = x.clone();
    if map != [h, w] {
        x = pad_by(&x, [0, 0, h - map[0], w - map[1]], 0.0, b);
    }
    for (axis, size, shift) in [(2, h, shift[0]), (3, w, shift[1])] {
        x = rolled(x, axis, size, shift, b);
    }
    let parts = match grid {
        false => {
            let cut = b.reshape(&x, [n, c, h / side, side, w / side, side]);
            b.transpose(&cut, [0, 2, 4, 3, 5, 1])
        }
        true => {
            let cut = b.reshape(&x, [n, c, side, h / side, side, w / side]);
            b.transpose(&cut, [0, 3, 5, 2, 4, 1])
        }
    };
    b.reshape(&parts, [n * windows.count(), windows.places(), c])
}

/// The inverse of [`partition`].
fn join(windows: &ShiftedWindows, tokens: &Value, [n, c]: [i64; 2], b: &mut Builder) -> Value {
    let ShiftedWindows { side, map, padded: [h, w], shift, grid } = *windows;
    let parts = b.reshape(tokens, [n, h / side, w / side, side, side, c]);
    let joined = match grid {
        false => b.transpose(&parts, [0, 5, 1, 3, 2, 4]),
        true => b.transpose(&parts, [0, 5, 3, 1, 4, 2]),
    };
    let mut x = b.reshape(&joined, [n, c, h, w]);
    for (axis, size, shift, cut) in [(2, h, shift[0], map[0]), (3, w, shift[1], map[1])] {
        x = rolled(x, axis, size, (size - shift) % size, b);
        if cut != size {
            x = b.slice(&x, axis, 0, cut, 1);
        }
    }
    x
}

/// A value whose first `shift` elements along a dimension of `size` elements are put at its end.
fn rolled(x: Value, axis: i64, size: i64, shift: i64, b: &mut Builder) -> Value {
    if shift == 0 {
        return x;
    }
    let parts = b.split(&x, axis, &[shift, size - shift]);
    concat(&[parts[1].clone(), parts[0].clone()], axis, b)
}
