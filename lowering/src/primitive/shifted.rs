//! Attention inside the windows of a map.

use ops_catalog::{Primitive, Step, TensorShape};
use tch::Tensor;

use super::attention::scaled_dot_product;
use super::{Kernel, Outcome};
use crate::weights::{Axis, Init, Source, WeightError};

/// The windows of a map of a fixed size.
#[derive(Clone, Copy)]
struct Windows {
    side: i64,
    /// Height and width of the map.
    map: [i64; 2],
    /// Height and width of the whole windows.
    padded: [i64; 2],
    shift: [i64; 2],
    grid: bool,
}

impl Windows {
    fn new([h, w]: [i64; 2], side: i64, shift: i64, grid: bool) -> Windows {
        let padded = [h, w].map(|size| (size + side - 1) / side * side);
        // A dimension of one window is not shifted, as in torchvision.
        let shift = padded.map(|size| if size > side { shift } else { 0 });
        Windows { side, map: [h, w], padded, shift, grid }
    }

    fn count(&self) -> i64 {
        self.padded[0] / self.side * (self.padded[1] / self.side)
    }

    /// `[n, c, h, w]` as `[n * windows, side * side, c]`.
    fn partition(&self, x: &Tensor) -> Outcome {
        let (n, c, _, _) = x.size4()?;
        let [h, w] = self.padded;
        let [down, across] = [h - self.map[0], w - self.map[1]];
        let mut x = x.shallow_clone();
        if down + across > 0 {
            x = x.f_pad([0, across, 0, down], "constant", Some(0.0))?;
        }
        if self.shift != [0, 0] {
            x = x.f_roll(self.shift.map(|shift| -shift), [2, 3])?;
        }
        let side = self.side;
        let parts = match self.grid {
            false => {
                x.f_reshape([n, c, h / side, side, w / side, side])?.f_permute([0, 2, 4, 3, 5, 1])
            }
            true => {
                x.f_reshape([n, c, side, h / side, side, w / side])?.f_permute([0, 3, 5, 2, 4, 1])
            }
        };
        parts?.f_reshape([n * self.count(), side * side, c])
    }

    /// The inverse of `partition`.
    fn join(&self, tokens: &Tensor) -> Outcome {
        let ([h, w], side) = (self.padded, self.side);
        let (all, _, c) = tokens.size3()?;
        let n = all / self.count();
        let parts = tokens.f_reshape([n, h / side, w / side, side, side, c])?;
        let joined = match self.grid {
            false => parts.f_permute([0, 5, 1, 3, 2, 4]),
            true => parts.f_permute([0, 5, 3, 1, 4, 2]),
        };
        let mut map = joined?.f_reshape([n, c, h, w])?;
        if self.shift != [0, 0] {
            map = map.f_roll(self.shift, [2, 3])?;
        }
        if self.padded != self.map {
            map = map.f_narrow(2, 0, self.map[0])?.f_narrow(3, 0, self.map[1])?;
        }
        Ok(map)
    }

    /// The row in the table of relative positions for each pair of places of a window.
    fn offsets(&self) -> Vec<i64> {
        let side = self.side;
        let places = || (0..side).flat_map(move |y| (0..side).map(move |x| (y, x)));
        let pairs = places().flat_map(|one| places().map(move |other| (one, other)));
        pairs
            .map(|((y, x), (other_y, other_x))| {
                (y - other_y + side - 1) * (2 * side - 1) + (x - other_x + side - 1)
            })
            .collect()
    }

    /// What is added to the scores of each window, `[windows, 1, places, places]`: places that came together only
    /// through the shift do not see each other.
    fn mask(&self) -> Vec<f32> {
        let side = self.side;
        let region = |at: i64, size: i64, shift: i64| match at {
            _ if shift == 0 => 0,
            at if at < size - side => 0,
            at if at < size - shift => 1,
            _ => 2,
        };
        let mut mask = vec![];
        for top in (0..self.padded[0]).step_by(side as usize) {
            for left in (0..self.padded[1]).step_by(side as usize) {
                let places = (0..side).flat_map(|y| (0..side).map(move |x| (top + y, left + x)));
                let regions: Vec<i64> = places
                    .map(|(y, x)| {
                        3 * region(y, self.padded[0], self.shift[0])
                            + region(x, self.padded[1], self.shift[1])
                    })
                    .collect();
                for one in &regions {
                    mask.extend(regions.iter().map(|o| if o == one { 0.0 } else { -100.0 }));
                }
            }
        }
        mask
    }
}

pub(super) fn window_attention(
    step: &Step,
    input: TensorShape,
    weights: &mut Source,
) -> Result<Kernel, WeightError> {
    let (
        Primitive::WindowAttention { heads, window, shift, grid },
        TensorShape::Map { c, h, w, .. },
    ) = (&step.primitive, input)
    else {
        unreachable!("shape inference refuses tokens, and the caller has window attention")
    };
    let (heads, c) = (i64::from(*heads), i64::from(c));
    let windows = Windows::new([h.into(), w.into()], (*window).into(), (*shift).into(), *grid);
    let mut dense = |part: &str, out: Axis| {
        weights.within(part, |weights| {
            let weight = weights.scaled("weight", &[out, Axis::Channels(c)], c)?;
            Ok((weight, weights.small("bias", out)?))
        })
    };
    let qkv = dense("qkv", Axis::Blocks { blocks: 3, channels: c })?;
    let out = dense("out", Axis::Channels(c))?;
    let places = windows.side * windows.side;
    let rows = (2 * windows.side - 1) * (2 * windows.side - 1);
    let axes = [Axis::Fixed(rows), Axis::Fixed(heads)];
    let table = weights.trained("positions", &axes, Init::Normal { deviation: 0.02 })?;
    let offsets = weights.indices(&windows.offsets())?;
    let mask = match windows.shift {
        [0, 0] => None,
        _ => Some(weights.constant(&windows.mask(), &[windows.count(), 1, places, places])?),
    };
    Ok(Kernel::of_one(move |x| {
        let tokens = windows.partition(x)?;
        let (all, _, _) = tokens.size3()?;
        let projected = tokens
            .f_linear(&qkv.0, Some(&qkv.1))?
            .f_view([all, places, 3, heads, c / heads])?
            .f_permute([2, 0, 3, 1, 4])?;
        let part = |index| projected.f_select(0, index);
        let bias = table
            .f_index_select(0, &offsets)?
            .f_view([places, places, heads])?
            .f_permute([2, 0, 1])?
            .f_contiguous()?
            .f_unsqueeze(0)?;
        let bias = match &mask {
            None => bias,
            Some(mask) => {
                let each = bias.f_add(mask)?;
                let count = windows.count();
                each.f_unsqueeze(0)?
                    .f_expand([all / count, count, heads, places, places], false)?
                    .f_reshape([all, heads, places, places])?
            }
        };
        let mixed = scaled_dot_product(&part(0)?, &part(1)?, &part(2)?, Some(&bias), false)?;
        let joined = mixed.f_transpose(1, 2)?.f_reshape([all, places, c])?;
        windows.join(&joined.f_linear(&out.0, Some(&out.1))?)
    }))
}
