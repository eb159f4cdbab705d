//! Primitives that work on sequences of tokens.

use ops_catalog::TensorShape;
use tch::Tensor;

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
    let attended = Tensor::f_scaled_dot_product_attention(
        &part(0)?,
        &part(1)?,
        &part(2)?,
        None::<&Tensor>,
        0.0,
        false,
        None,
        #[cfg(not(torch_before_2_5))]
        false,
    )?;
    let joined = attended.f_transpose(1, 2)?.f_reshape([n, l, c])?;
    joined.f_linear(&out.0, Some(&out.1))
}

pub(super) fn to_tokens(
    class_token: bool,
    input: TensorShape,
    weights: &mut Source,
) -> Result<Kernel, WeightError> {
    let TensorShape::Map { c, h, w, .. } = input else {
        unreachable!("shape inference refuses tokens")
    };
    let length = i64::from(h) * i64::from(w) + i64::from(class_token);
    let c = i64::from(c);
    let token = class_token.then(|| weights.small("class_token", Axis::Channels(c))).transpose()?;
    let axes = [Axis::Fixed(1), Axis::Fixed(length), Axis::Channels(c)];
    let positions = weights.scaled("positions", &axes, c)?;
    Ok(Kernel::of_one(move |x| {
        let tokens = x.f_flatten(2, -1)?.f_transpose(1, 2)?;
        let tokens = match &token {
            Some(token) => {
                let (n, _, c) = tokens.size3()?;
                Tensor::f_cat(&[token.f_expand([n, 1, c], false)?, tokens], 1)?
            }
            None => tokens,
        };
        tokens.f_add(&positions)
    }))
}

pub(super) fn class_token() -> Kernel {
    let first = |x: &Tensor| {
        let (n, _, c) = x.size3()?;
        x.f_select(1, 0)?.f_reshape([n, c, 1, 1])
    };
    Kernel::of_one(first).giving_view()
}
