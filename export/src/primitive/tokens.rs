//! Sequences of tokens: how they are made from maps, and become maps again.

use ops_catalog::{Init, Step, TensorShape};

use super::{concat, map_dims, token_dims};
use crate::builder::{Builder, int};
use crate::model::Value;

/// ONNX's number of the type of 64-bit integers.
const INT64: i64 = 7;

pub(super) fn to_tokens(
    class_token: bool,
    positions: bool,
    x: &Value,
    shape: TensorShape,
    b: &mut Builder,
) -> Value {
    let [n, c, h, w] = map_dims(shape);
    let flat = b.reshape(x, [n, c, h * w]);
    let mut tokens = b.transpose(&flat, [0, 2, 1]);
    if class_token {
        let token = b.viewed("class_token", &[c], Init::SMALL, &[1, 1, c]);
        let token = for_each(token, [n, 1, c], b);
        tokens = concat(&[token, tokens], 1, b);
    }
    if !positions {
        return tokens;
    }
    let dims = [1, h * w + i64::from(class_token), c];
    let positions = b.weight("positions", &dims, Init::scaled(c));
    b.binary("Add", &tokens, &positions)
}

/// Tokens for each sequence of a batch.
fn for_each(tokens: Value, dims: [i64; 3], b: &mut Builder) -> Value {
    if dims[0] == 1 {
        return tokens;
    }
    let dims = b.integers(&dims);
    b.binary("Expand", &tokens, &dims)
}

pub(super) fn to_map(step: &Step, x: &Value, b: &mut Builder) -> Value {
    let first = b.transpose(x, [0, 2, 1]);
    b.reshape_to(&first, &step.outputs[0].dims())
}

/// `[n, c, h, w]` as `[n * patch * patch, h / patch * w / patch, c]`.
pub(super) fn unfold(
    patch: u32,
    step: &Step,
    x: &Value,
    shape: TensorShape,
    b: &mut Builder,
) -> Value {
    let ([n, c, h, w], patch) = (map_dims(shape), i64::from(patch));
    let parts = b.reshape(x, [n, c, h / patch, patch, w / patch, patch]);
    let moved = b.transpose(&parts, [0, 3, 5, 2, 4, 1]);
    b.reshape_to(&moved, &step.outputs[0].dims())
}

/// The inverse of [`unfold`].
pub(super) fn fold(patch: u32, step: &Step, x: &Value, b: &mut Builder) -> Value {
    let ([n, c, h, w], patch) = (map_dims(step.outputs[0]), i64::from(patch));
    let parts = b.reshape(x, [n, patch, patch, h / patch, w / patch, c]);
    let moved = b.transpose(&parts, [0, 5, 3, 1, 4, 2]);
    b.reshape(&moved, [n, c, h, w])
}

/// A number counts as its whole part, modulo the number of rows.
pub(super) fn embedding(
    [rows, out]: [u32; 2],
    x: &Value,
    shape: TensorShape,
    b: &mut Builder,
) -> Value {
    let [n, _, l, _] = map_dims(shape);
    let (rows, out) = (i64::from(rows), i64::from(out));
    let table = b.weight("weight", &[rows, out], Init::Normal { deviation: 1.0 });
    let flat = b.reshape(x, [n, l]);
    let floor = b.unary("Floor", &flat);
    let numbers = b.node("Cast", &[&floor], [int("to", INT64)]);
    let count = b.index(rows);
    let numbers = b.binary("Mod", &numbers, &count);
    b.node("Gather", &[&table, &numbers], [int("axis", 0)])
}

pub(super) fn position_embedding(x: &Value, shape: TensorShape, b: &mut Builder) -> Value {
    let mut dims = shape.dims();
    dims[0] = 1;
    let positions = b.weight("positions", &dims, Init::scaled(shape.channels().into()));
    b.binary("Add", x, &positions)
}

pub(super) fn prepend(count: u32, x: &Value, shape: TensorShape, b: &mut Builder) -> Value {
    let ([n, _, c], count) = (token_dims(shape), i64::from(count));
    let first = b.weight("tokens", &[1, count, c], Init::scaled(c));
    let first = for_each(first, [n, count, c], b);
    concat(&[first, x.clone()], 1, b)
}

pub(super) fn select(index: u32, step: &Step, x: &Value, b: &mut Builder) -> Value {
    let index = b.index(index.into());
    let token = b.node("Gather", &[x, &index], [int("axis", 1)]);
    b.reshape_to(&token, &step.outputs[0].dims())
}
