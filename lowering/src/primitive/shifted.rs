//! Attention inside the windows of a map.

use ops_catalog::{Init, Primitive, ShiftedWindows, Step, TensorShape};
use tch::Tensor;

use super::attention::{cosine_product, head_factors, scaled_dot_product};
use super::{Kernel, Outcome};
use crate::weights::{Axis, Source, WeightError};

/// How a map is cut into windows, and put together again.
struct Cut(ShiftedWindows);

impl Cut {
    /// `[n, c, h, w]` as `[n * windows, side * side, c]`.
    fn partition(&self, x: &Tensor) -> Outcome {
        let ShiftedWindows { side, map, padded: [h, w], shift, grid } = self.0;
        let (n, c, _, _) = x.size4()?;
        let [down, across] = [h - map[0], w - map[1]];
        let mut x = x.shallow_clone();
        if down + across > 0 {
            x = x.f_pad([0, across, 0, down], "constant", Some(0.0))?;
        }
        if shift != [0, 0] {
            x = x.f_roll(shift.map(|shift| -shift), [2, 3])?;
        }
        let parts = match grid {
            false => {
                x.f_reshape([n, c, h / side, side, w / side, side])?.f_permute([0, 2, 4, 3, 5, 1])
            }
            true => {
                x.f_reshape([n, c, side, h / side, side, w / side])?.f_permute([0, 3, 5, 2, 4, 1])
            }
        };
        parts?.f_reshape([n * self.0.count(), self.0.places(), c])
    }

    /// The inverse of `partition`.
    fn join(&self, tokens: &Tensor) -> Outcome {
        let ShiftedWindows { side, map: cut, padded: [h, w], shift, grid } = self.0;
        let (all, _, c) = tokens.size3()?;
        let n = all / self.0.count();
        let parts = tokens.f_reshape([n, h / side, w / side, side, side, c])?;
        let joined = match grid {
            false => parts.f_permute([0, 5, 1, 3, 2, 4]),
            true => parts.f_permute([0, 5, 3, 1, 4, 2]),
        };
        let mut map = joined?.f_reshape([n, c, h, w])?;
        if shift != [0, 0] {
            map = map.f_roll(shift, [2, 3])?;
        }
        if cut != [h, w] {
            map = map.f_narrow(2, 0, cut[0])?.f_narrow(3, 0, cut[1])?;
        }
        Ok(map)
    }
}

pub(super) fn window_attention(
    step: &Step,
    input: TensorShape,
    weights: &mut Source,
) -> Result<Kernel, WeightError> {
    let (
        Primitive::WindowAttention { heads, window, shift, grid, position_bias, cosine },
        TensorShape::Map { c, h, w, .. },
    ) = (&step.primitive, input)
    else {
        unreachable!("shape inference refuses tokens, and the caller has window attention")
    };
    let (heads, c) = (i64::from(*heads), i64::from(c));
    let windows =
        ShiftedWindows::new([h.into(), w.into()], (*window).into(), (*shift).into(), *grid);
    let (count, places) = (windows.count(), windows.places());
    let mut dense = |part: &str, out: Axis| {
        weights.within(part, |weights| {
            let weight = weights.scaled("weight", &[out, Axis::Channels(c)], c)?;
            Ok((weight, weights.small("bias", out)?))
        })
    };
    let qkv = dense("qkv", Axis::Blocks { blocks: 3, channels: c })?;
    let out = dense("out", Axis::Channels(c))?;
    let axes = [Axis::Fixed(windows.offsets()), Axis::Fixed(heads)];
    let init = Init::Normal { deviation: 0.02 };
    let table = position_bias.then(|| weights.trained("positions", &axes, init)).transpose()?;
    let pairs = || (0..places).flat_map(|query| (0..places).map(move |key| (query, key)));
    let rows: Vec<i64> = pairs().map(|(query, key)| windows.offset(query, key)).collect();
    let offsets = weights.indices(&rows)?;
    let mask = match windows.shift {
        [0, 0] => None,
        _ => {
            let seen = |window, (query, key)| windows.see_each_other(window, query, key);
            let masks = (0..count).flat_map(|window| pairs().map(move |pair| seen(window, pair)));
            let mask: Vec<f32> = masks.map(|seen| if seen { 0.0 } else { -100.0 }).collect();
            Some(weights.constant(&mask, &[count, 1, places, places])?)
        }
    };
    let factors = cosine.then(|| head_factors(heads, weights)).transpose()?;
    let cut = Cut(windows);
    Ok(Kernel::of_one(move |x| {
        let tokens = cut.partition(x)?;
        let (all, _, _) = tokens.size3()?;
        let projected = tokens
            .f_linear(&qkv.0, Some(&qkv.1))?
            .f_view([all, places, 3, heads, c / heads])?
            .f_permute([2, 0, 3, 1, 4])?;
        let part = |index| projected.f_select(0, index);
        let biases = |table: &Tensor| {
            table
                .f_index_select(0, &offsets)?
                .f_view([places, places, heads])?
                .f_permute([2, 0, 1])?
                .f_contiguous()?
                .f_unsqueeze(0)
        };
        let bias = table.as_ref().map(biases).transpose()?;
        let bias = match (&mask, bias) {
            (None, bias) => bias,
            (Some(mask), bias) => {
                let each = match bias {
                    Some(bias) => bias.f_add(mask)?,
                    None => mask.f_expand([count, heads, places, places], false)?,
                };
                let of_images = each
                    .f_unsqueeze(0)?
                    .f_expand([all / count, count, heads, places, places], false)?;
                Some(of_images.f_reshape([all, heads, places, places])?)
            }
        };
        let (q, k, v) = (part(0)?, part(1)?, part(2)?);
        let mixed = match &factors {
            Some(factors) => cosine_product(&q, &k, &v, factors, bias.as_ref())?,
            None => scaled_dot_product(&q, &k, &v, bias.as_ref(), false)?,
        };
        let joined = mixed.f_transpose(1, 2)?.f_reshape([all, places, c])?;
        cut.join(&joined.f_linear(&out.0, Some(&out.1))?)
    }))
}
