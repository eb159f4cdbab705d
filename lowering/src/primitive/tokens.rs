//! Sequences of tokens: how they are made from maps, and become maps again.

use ops_catalog::{Init, Step, TensorShape};
use tch::{Kind, Tensor};

use super::{Kernel, Outcome};
use crate::weights::{Axis, Source, WeightError};

pub(super) fn to_tokens(
    class_token: bool,
    positions: bool,
    input: TensorShape,
    weights: &mut Source,
) -> Result<Kernel, WeightError> {
    let length = input.positions() as i64 + i64::from(class_token);
    let c = i64::from(input.channels());
    let token = class_token.then(|| weights.small("class_token", Axis::Channels(c))).transpose()?;
    let axes = [Axis::Fixed(1), Axis::Fixed(length), Axis::Channels(c)];
    let positions = positions.then(|| weights.scaled("positions", &axes, c)).transpose()?;
    let copies = token.is_some() || positions.is_some();
    let kernel = Kernel::of_one(move |x| {
        let tokens = x.f_flatten(2, -1)?.f_transpose(1, 2)?;
        let tokens = match &token {
            Some(token) => {
                let (n, _, c) = tokens.size3()?;
                Tensor::f_cat(&[token.f_expand([n, 1, c], false)?, tokens], 1)?
            }
            None => tokens,
        };
        match &positions {
            Some(positions) => tokens.f_add(positions),
            None => Ok(tokens),
        }
    });
    Ok(if copies { kernel } else { kernel.giving_view() })
}

pub(super) fn to_map(step: &Step) -> Kernel {
    let output = step.outputs[0].dims();
    let kernel = Kernel::of_one(move |x| x.f_transpose(1, 2)?.f_reshape(output.as_slice()));
    kernel.giving_view()
}

/// `[n, c, h, w]` as `[n * patch * patch, h / patch * w / patch, c]`.
pub(super) fn unfold(patch: u32) -> Kernel {
    let patch = i64::from(patch);
    Kernel::of_one(move |x| {
        let (n, c, h, w) = x.size4()?;
        let (rows, columns) = (h / patch, w / patch);
        x.f_reshape([n, c, rows, patch, columns, patch])?
            .f_permute([0, 3, 5, 2, 4, 1])?
            .f_reshape([n * patch * patch, rows * columns, c])
    })
}

/// The inverse of [`unfold`].
pub(super) fn fold(patch: u32, step: &Step) -> Kernel {
    let patch = i64::from(patch);
    let output = step.outputs[0].dims();
    Kernel::of_one(move |x| {
        let [n, c, h, w] = output[..] else { unreachable!("the output is a map") };
        x.f_reshape([n, patch, patch, h / patch, w / patch, c])?
            .f_permute([0, 5, 3, 1, 4, 2])?
            .f_reshape([n, c, h, w])
    })
}

pub(super) fn embedding(rows: u32, out: u32, weights: &mut Source) -> Result<Kernel, WeightError> {
    let (rows, out) = (i64::from(rows), i64::from(out));
    let axes = [Axis::Fixed(rows), Axis::Channels(out)];
    let table = weights.trained("weight", &axes, Init::Normal { deviation: 1.0 })?;
    Ok(Kernel::of_one(move |x| {
        let numbers = x.f_flatten(1, -1)?.f_floor()?.f_to_kind(Kind::Int64)?;
        Tensor::f_embedding(&table, &numbers.f_remainder(rows)?, -1, false, false)
    }))
}

pub(super) fn position_embedding(
    input: TensorShape,
    weights: &mut Source,
) -> Result<Kernel, WeightError> {
    let c = i64::from(input.channels());
    let axes = match input {
        TensorShape::Map { h, w, .. } => {
            vec![Axis::Fixed(1), Axis::Channels(c), Axis::Fixed(h.into()), Axis::Fixed(w.into())]
        }
        TensorShape::Tokens { l, .. } => {
            vec![Axis::Fixed(1), Axis::Fixed(l.into()), Axis::Channels(c)]
        }
    };
    let positions = weights.scaled("positions", &axes, c)?;
    Ok(Kernel::of_one(move |x| x.f_add(&positions)))
}

pub(super) fn prepend(count: u32, c: i64, weights: &mut Source) -> Result<Kernel, WeightError> {
    let count = i64::from(count);
    let axes = [Axis::Fixed(1), Axis::Fixed(count), Axis::Channels(c)];
    let first = weights.scaled("tokens", &axes, c)?;
    Ok(Kernel::of_one(move |x| {
        let n = x.size()[0];
        Tensor::f_cat(&[&first.f_expand([n, count, c], false)?, x], 1)
    }))
}

pub(super) fn select(index: u32) -> Kernel {
    let token = move |x: &Tensor| -> Outcome {
        let (n, _, c) = x.size3()?;
        x.f_select(1, index.into())?.f_reshape([n, c, 1, 1])
    };
    Kernel::of_one(token).giving_view()
}
