//! Attention.

use ops_catalog::{Init, Primitive, Step, TensorShape, rotary_angle};
use tch::{Kind, Tensor};

use super::{Kernel, Outcome};
use crate::weights::{Axis, Source, WeightError};

/// Multi-head self-attention with fused projections, over tokens or over the positions of a map.
pub(super) fn self_attention(
    heads: u32,
    c: i64,
    weights: &mut Source,
) -> Result<Kernel, WeightError> {
    let heads = i64::from(heads);
    let mut dense = |part: &str, out: Axis| {
        weights.within(part, |weights| {
            let weight = weights.scaled("weight", &[out, Axis::Channels(c)], c)?;
            Ok((weight, weights.small("bias", out)?))
        })
    };
    let qkv = dense("qkv", Axis::Blocks { blocks: 3, channels: c })?;
    let out = dense("out", Axis::Channels(c))?;
    Ok(Kernel::of_one(move |x| {
        let map = (x.dim() == 4).then(|| x.size());
        let tokens = match map {
            Some(_) => x.f_flatten(2, -1)?.f_transpose(1, 2)?,
            None => x.shallow_clone(),
        };
        let result = over_tokens(&tokens, &qkv, &out, heads)?;
        match map {
            Some(size) => result.f_transpose(1, 2)?.f_reshape(size.as_slice()),
            None => Ok(result),
        }
    }))
}

fn over_tokens(
    tokens: &Tensor,
    qkv: &(Tensor, Tensor),
    out: &(Tensor, Tensor),
    heads: i64,
) -> Outcome {
    let (n, l, c) = tokens.size3()?;
    let projected = tokens
        .f_linear(&qkv.0, Some(&qkv.1))?
        .f_view([n, l, 3, heads, c / heads])?
        .f_permute([2, 0, 3, 1, 4])?;
    let part = |index| projected.f_select(0, index);
    let attended = scaled_dot_product(&part(0)?, &part(1)?, &part(2)?, None, false)?;
    let joined = attended.f_transpose(1, 2)?.f_reshape([n, l, c])?;
    joined.f_linear(&out.0, Some(&out.1))
}

/// Attention over queries, keys and values, each a sequence or a map. `inputs` are their shapes.
pub(super) fn attention(
    step: &Step,
    inputs: &[TensorShape],
    weights: &mut Source,
) -> Result<Kernel, WeightError> {
    let Primitive::Attention { heads, kv_heads, causal, position_bias, cosine } = step.primitive
    else {
        unreachable!("the caller has an attention")
    };
    let (heads, kv_heads) = (i64::from(heads), i64::from(kv_heads.unwrap_or(heads)));
    let positions = |input: usize| Axis::Fixed(inputs[input].positions() as i64);
    let axes = [Axis::Fixed(1), Axis::Fixed(heads), positions(0), positions(1)];
    let biases = position_bias
        .then(|| weights.trained("positions", &axes, Init::Normal { deviation: 0.02 }))
        .transpose()?;
    let factors = cosine.then(|| head_factors(heads, weights)).transpose()?;
    let queries_and_keys = [inputs[0], inputs[1]].map(|shape| shape.positions() as i64);
    let unseen = match (cosine && causal, queries_and_keys) {
        (true, [l, s]) => {
            let seen = (0..l).flat_map(|query| (0..s).map(move |key| key <= query));
            let mask: Vec<f32> = seen.map(|seen| if seen { 0.0 } else { UNSEEN }).collect();
            Some(weights.constant(&mask, &[l, s])?)
        }
        (false, _) => None,
    };
    Ok(Kernel::merging(move |arguments, _| {
        let queries = arguments[0].tensor();
        let q = by_head(queries, heads)?;
        let k = shared_by(by_head(arguments[1].tensor(), kv_heads)?, heads / kv_heads)?;
        let v = shared_by(by_head(arguments[2].tensor(), kv_heads)?, heads / kv_heads)?;
        let mixed = match &factors {
            Some(factors) => {
                cosine_product(&q, &k, &v, factors, biases.as_ref().or(unseen.as_ref()))?
            }
            None => scaled_dot_product(&q, &k, &v, biases.as_ref(), causal)?,
        };
        let (n, _, length, size) = mixed.size4()?;
        match queries.size()[..] {
            // Channels first: the values of a head stand together.
            [_, _, h, w] => mixed.f_transpose(2, 3)?.f_reshape([n, heads * size, h, w]),
            _ => mixed.f_transpose(1, 2)?.f_reshape([n, length, heads * size]),
        }
    }))
}

/// `[n, heads, length, channels of a head]`, from a sequence or a map.
fn by_head(x: &Tensor, heads: i64) -> Outcome {
    match x.size()[..] {
        [n, c, ..] if x.dim() == 4 => x.f_reshape([n, heads, c / heads, -1])?.f_transpose(2, 3),
        _ => {
            let (n, length, c) = x.size3()?;
            x.f_reshape([n, length, heads, c / heads])?.f_transpose(1, 2)
        }
    }
}

/// Each head `times` times, one after the other. Older releases have no attention over fewer heads of keys and values.
fn shared_by(x: Tensor, times: i64) -> Outcome {
    if times == 1 {
        return Ok(x);
    }
    let (n, heads, length, size) = x.size4()?;
    let repeated = x.f_unsqueeze(2)?.f_expand([n, heads, times, length, size], false)?;
    repeated.f_reshape([n, heads * times, length, size])
}

pub(super) fn scaled_dot_product(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    mask: Option<&Tensor>,
    causal: bool,
) -> Outcome {
    Tensor::f_scaled_dot_product_attention(
        q,
        k,
        v,
        mask,
        0.0,
        causal,
        None,
        #[cfg(not(torch_before_2_5))]
        false,
    )
}

/// Added to the scores of keys that a query does not see, where the scores are written out.
const UNSEEN: f32 = f32::NEG_INFINITY;

/// The smallest length by which a vector is divided, as in `torch.nn.functional.normalize`.
const SHORTEST: f64 = 1e-12;

/// The factors of the scores of each head.
pub(super) fn head_factors(heads: i64, weights: &mut Source) -> Result<Tensor, WeightError> {
    let factors = weights.trained("scale", &[Axis::Fixed(heads)], Init::Ones)?;
    weights.viewed("scale", &factors, &[heads, 1, 1])
}

/// Vectors of the last dimension, divided by their lengths.
fn normalized(x: &Tensor) -> Outcome {
    let lengths = x.f_square()?.f_sum_dim_intlist([-1].as_slice(), true, None::<Kind>)?.f_sqrt()?;
    x.f_div(&lengths.f_clamp_min(SHORTEST)?)
}

/// `softmax(cosines of q and k * factors + mask) v`, written out as models do: libtorch's own function has one factor
/// for all heads.
pub(super) fn cosine_product(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    factors: &Tensor,
    mask: Option<&Tensor>,
) -> Outcome {
    let keys = normalized(k)?.f_transpose(-2, -1)?;
    let mut scores = normalized(q)?.f_matmul(&keys)?.f_mul(factors)?;
    if let Some(mask) = mask {
        scores = scores.f_add(mask)?;
    }
    scores.f_softmax(-1, None::<Kind>)?.f_matmul(v)
}

/// Attention of the channels of each head, over three sequences or maps.
pub(super) fn of_channels(
    heads: u32,
    cosine: bool,
    weights: &mut Source,
) -> Result<Kernel, WeightError> {
    let heads = i64::from(heads);
    let factors = cosine.then(|| head_factors(heads, weights)).transpose()?;
    Ok(Kernel::merging(move |arguments, _| {
        let like = arguments[0].tensor();
        let part = |index: usize| by_head(arguments[index].tensor(), heads)?.f_transpose(2, 3);
        let (q, k, v) = (part(0)?, part(1)?, part(2)?);
        let mixed = match &factors {
            Some(factors) => cosine_product(&q, &k, &v, factors, None)?,
            None => {
                let (_, _, _, positions) = q.size4()?;
                let scores = q.f_matmul(&k.f_transpose(-2, -1)?)?;
                let scores = scores.f_mul_scalar(1.0 / (positions as f64).sqrt())?;
                scores.f_softmax(-1, None::<Kind>)?.f_matmul(&v)?
            }
        };
        match like.dim() {
            4 => mixed.f_reshape(like.size()),
            _ => mixed.f_permute([0, 3, 1, 2])?.f_reshape(like.size()),
        }
    }))
}

/// Rotates the halves of each head against each other: `x cos + (-x2, x1) sin`, by the angles of [`rotary_angle`].
pub(super) fn rotary(
    heads: u32,
    input: TensorShape,
    weights: &mut Source,
) -> Result<Kernel, WeightError> {
    let (length, c) = (input.positions(), i64::from(input.channels()));
    let heads = i64::from(heads);
    let size = c / heads;
    let angles: Vec<f64> = (0..length)
        .flat_map(|position| {
            (0..size.unsigned_abs())
                .map(move |channel| rotary_angle(position, channel, size.unsigned_abs()))
        })
        .collect();
    let table = |function: fn(f64) -> f64| {
        let values: Vec<f32> = angles.iter().map(|&angle| function(angle) as f32).collect();
        weights.constant(&values, &[length as i64, 1, size])
    };
    let (cos, sin) = (table(f64::cos)?, table(f64::sin)?);
    Ok(Kernel::of_one(move |x| {
        let (n, l, c) = x.size3()?;
        let x = x.f_reshape([n, l, heads, size])?;
        let half = size / 2;
        let (first, second) = (x.f_narrow(3, 0, half)?, x.f_narrow(3, half, half)?);
        let turned = Tensor::f_cat(&[second.f_neg()?, first], 3)?;
        x.f_mul(&cos)?.f_add(&turned.f_mul(&sin)?)?.f_reshape([n, l, c])
    }))
}
