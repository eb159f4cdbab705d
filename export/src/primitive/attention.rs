//! Attention.

use ops_catalog::{Init, Primitive, Step, TensorShape, rotary_angle};

use super::dense::over_last;
use super::{concat, map_dims, token_dims};
use crate::builder::{Builder, int, ints};
use crate::model::Value;

/// Added to the scores of keys that a query does not see: their shares are zero in single precision. Infinity would
/// break the ranges that quantizers compute.
const UNSEEN: f64 = -1e4;

/// Multi-head self-attention with its projections, over tokens or over the positions of a map.
pub(super) fn self_attention(heads: u32, x: &Value, shape: TensorShape, b: &mut Builder) -> Value {
    match shape {
        TensorShape::Tokens { .. } => {
            over_tokens((heads.into(), false), x, token_dims(shape), |x, _| x, b)
        }
        TensorShape::Map { .. } => {
            let [n, c, h, w] = map_dims(shape);
            let flat = b.reshape(x, [n, c, h * w]);
            let tokens = b.transpose(&flat, [0, 2, 1]);
            let mixed = over_tokens((heads.into(), false), &tokens, [n, h * w, c], |x, _| x, b);
            let first = b.transpose(&mixed, [0, 2, 1]);
            b.reshape(&first, [n, c, h, w])
        }
    }
}

/// Self-attention with its projections, over `n` sequences of length `l`, with or without cosines as scores. `adjust`
/// is what happens to the scores.
pub(super) fn over_tokens(
    (heads, cosine): (i64, bool),
    tokens: &Value,
    [n, l, c]: [i64; 3],
    adjust: impl FnOnce(Value, &mut Builder) -> Value,
    b: &mut Builder,
) -> Value {
    let projected = b.within("qkv", |b| over_last(3 * c, true, tokens, c, b));
    let parts = b.split(&projected, 2, &[c, c, c]);
    let size = c / heads;
    let mut by_head = |part: &Value, order: [i64; 4]| {
        let split = b.reshape(part, [n, l, heads, size]);
        b.transpose(&split, order)
    };
    let q = by_head(&parts[0], [0, 2, 1, 3]);
    let k = by_head(&parts[1], [0, 2, 3, 1]);
    let v = by_head(&parts[2], [0, 2, 1, 3]);
    let scores = if cosine { Scores::Cosines { heads } } else { Scores::Products { size } };
    let mixed = scaled_dot_product([&q, &k, &v], scores, adjust, b);
    let last = b.transpose(&mixed, [0, 2, 1, 3]);
    let joined = b.reshape(&last, [n, l, c]);
    b.within("out", |b| over_last(c, true, &joined, c, b))
}

/// How a query and a key are compared.
enum Scores {
    /// By their product, over the root of the size of a head.
    Products { size: i64 },
    /// By their cosine, times a factor for each head.
    Cosines { heads: i64 },
}

/// The smallest length by which a vector is divided, as in `torch.nn.functional.normalize`.
const SHORTEST: f64 = 1e-12;

/// Vectors along a dimension, divided by their lengths.
fn normalized(x: &Value, axis: i64, b: &mut Builder) -> Value {
    let attributes = [ints("axes", [axis]), int("keepdims", 1)];
    let lengths = b.node("ReduceL2", &[x], attributes);
    let lengths = b.with_number("Max", &lengths, SHORTEST);
    b.binary("Div", x, &lengths)
}

/// `softmax(scores of q and k) v`, with keys that are transposed already. `adjust` is what happens to the scores.
fn scaled_dot_product(
    [q, k, v]: [&Value; 3],
    scores: Scores,
    adjust: impl FnOnce(Value, &mut Builder) -> Value,
    b: &mut Builder,
) -> Value {
    let scores = match scores {
        Scores::Products { size } => {
            let products = b.binary("MatMul", q, k);
            b.with_number("Mul", &products, 1.0 / (size as f64).sqrt())
        }
        Scores::Cosines { heads } => {
            let (q, k) = (normalized(q, -1, b), normalized(k, -2, b));
            let cosines = b.binary("MatMul", &q, &k);
            let factors = b.viewed("scale", &[heads], Init::Ones, &[heads, 1, 1]);
            b.binary("Mul", &cosines, &factors)
        }
    };
    let scores = adjust(scores, b);
    let shares = b.node("Softmax", &[&scores], [int("axis", -1)]);
    b.binary("MatMul", &shares, v)
}

/// Attention over queries, keys and values, each a sequence or a map.
pub(super) fn attention(
    step: &Step,
    inputs: &[Value],
    shapes: &[TensorShape],
    b: &mut Builder,
) -> Value {
    let Primitive::Attention { heads, kv_heads, causal, position_bias, cosine } = step.primitive
    else {
        unreachable!("the caller has an attention")
    };
    let (heads, kv_heads) = (i64::from(heads), i64::from(kv_heads.unwrap_or(heads)));
    let [queries, keys] = [0, 1].map(|input: usize| shapes[input].positions() as i64);
    let size = i64::from(shapes[0].channels()) / heads;
    let q = by_head(&inputs[0], shapes[0], heads, false, b);
    let k = by_head(&inputs[1], shapes[1], kv_heads, true, b);
    let v = by_head(&inputs[2], shapes[2], kv_heads, false, b);
    let k = shared_by(k, heads / kv_heads, b);
    let v = shared_by(v, heads / kv_heads, b);
    let adjust = |scores: Value, b: &mut Builder| {
        if position_bias {
            let init = Init::Normal { deviation: 0.02 };
            let biases = b.weight("positions", &[1, heads, queries, keys], init);
            return b.binary("Add", &scores, &biases);
        }
        if causal {
            let dims = b.integers(&[queries, keys]);
            let number = b.number(UNSEEN);
            let all = b.binary("Expand", &number, &dims);
            let after = b.index(1);
            let mask = b.node("Trilu", &[&all, &after], [int("upper", 1)]);
            return b.binary("Add", &scores, &mask);
        }
        scores
    };
    let scores = if cosine { Scores::Cosines { heads } } else { Scores::Products { size } };
    let mixed = scaled_dot_product([&q.value, &k.value, &v.value], scores, adjust, b);
    let order = match shapes[0] {
        // Channels first: the values of a head stand together.
        TensorShape::Map { .. } => [0, 1, 3, 2],
        TensorShape::Tokens { .. } => [0, 2, 1, 3],
    };
    let ordered = b.transpose(&mixed, order);
    b.reshape_to(&ordered, &step.outputs[0].dims())
}

/// Attention of the channels of each head.
pub(super) fn of_channels(
    (heads, cosine): (u32, bool),
    inputs: &[Value],
    shape: TensorShape,
    b: &mut Builder,
) -> Value {
    let heads = i64::from(heads);
    // A head's channels are what is compared, so keys are transposed where their channels come last.
    let q = by_head(&inputs[0], shape, heads, true, b);
    let k = by_head(&inputs[1], shape, heads, false, b);
    let v = by_head(&inputs[2], shape, heads, true, b);
    let parts = [&q.value, &k.value, &v.value];
    let scores = match cosine {
        true => Scores::Cosines { heads },
        false => Scores::Products { size: shape.positions() as i64 },
    };
    let mixed = scaled_dot_product(parts, scores, |scores, _| scores, b);
    let ordered = match shape {
        TensorShape::Map { .. } => mixed,
        TensorShape::Tokens { .. } => b.transpose(&mixed, [0, 3, 1, 2]),
    };
    b.reshape_to(&ordered, &shape.dims())
}

/// Values by head, with their dimensions.
struct ByHead {
    value: Value,
    dims: [i64; 4],
}

/// `[n, heads, length, size of a head]` from a sequence or a map; with `transposed`, the last two are exchanged.
fn by_head(x: &Value, shape: TensorShape, heads: i64, transposed: bool, b: &mut Builder) -> ByHead {
    let (c, length) = (i64::from(shape.channels()), shape.positions() as i64);
    let (n, size) = (shape.dims()[0], c / heads);
    let dims = if transposed { [n, heads, size, length] } else { [n, heads, length, size] };
    let value = match shape {
        TensorShape::Map { .. } => {
            let first = b.reshape(x, [n, heads, size, length]);
            if transposed { first } else { b.transpose(&first, [0, 1, 3, 2]) }
        }
        TensorShape::Tokens { .. } => {
            let last = b.reshape(x, [n, length, heads, size]);
            b.transpose(&last, if transposed { [0, 2, 3, 1] } else { [0, 2, 1, 3] })
        }
    };
    ByHead { value, dims }
}

/// Each head `times` times, one after the other.
fn shared_by(x: ByHead, times: i64, b: &mut Builder) -> ByHead {
    if times == 1 {
        return x;
    }
    let [n, heads, rows, columns] = x.dims;
    let single = b.reshape(&x.value, [n, heads, 1, rows, columns]);
    let dims = b.integers(&[n, heads, times, rows, columns]);
    let repeated = b.binary("Expand", &single, &dims);
    let dims = [n, heads * times, rows, columns];
    ByHead { value: b.reshape(&repeated, dims), dims }
}

/// Rotates the halves of each head against each other: `x cos + (-x2, x1) sin`.
pub(super) fn rotary(heads: u32, x: &Value, shape: TensorShape, b: &mut Builder) -> Value {
    let [n, l, c] = token_dims(shape);
    let size = c / i64::from(heads);
    let mut table = |function: fn(f64) -> f64| {
        let angle = move |place: i64| {
            let [position, channel] = [place / size, place % size].map(i64::unsigned_abs);
            rotary_angle(position, channel, size.unsigned_abs())
        };
        b.numbers(&[l, 1, size], move |place| function(angle(place)) as f32)
    };
    let (cos, sin) = (table(f64::cos), table(f64::sin));
    let x = b.reshape(x, [n, l, heads.into(), size]);
    let halves = b.split(&x, 3, &[size / 2, size / 2]);
    let negated = b.unary("Neg", &halves[1]);
    let turned = concat(&[negated, halves[0].clone()], 3, b);
    let (kept, turned) = (b.binary("Mul", &x, &cos), b.binary("Mul", &turned, &sin));
    let sum = b.binary("Add", &kept, &turned);
    b.reshape(&sum, [n, l, c])
}
