//! Pooling and resizing.

use ops_catalog::{Interpolation, Padding, Pair, Primitive, Sides};

use super::{Placed, Placer, Why, number};
use crate::graph::{Operation, Pooling};

impl Placer<'_> {
    pub(super) fn pool(&mut self) -> Result<Placed, Why> {
        let Operation::Pool { pooling, kernel, stride, dilation, before, after, ceil_mode } =
            &self.node.operation
        else {
            unreachable!("the caller has a pooling")
        };
        let both = |sizes: &[u32], other: u32| match *sizes {
            [h] => Ok(Pair { h, w: other }),
            [h, w] => Ok(Pair { h, w }),
            _ => Err("only 1-D and 2-D pooling is in the catalog".to_owned()),
        };
        let (top_left, bottom_right) = (both(before, 0)?, both(after, 0)?);
        let padding = Some(Padding::Sides(Sides {
            top: top_left.h,
            bottom: bottom_right.h,
            left: top_left.w,
            right: bottom_right.w,
        }));
        let (kernel, stride) = (both(kernel, 1)?, both(stride, 1)?);
        let (dilation, ceil_mode) = (both(dilation, 1)?, *ceil_mode);
        self.on_map(match *pooling {
            Pooling::Max => Primitive::MaxPool { kernel, stride, dilation, padding, ceil_mode },
            Pooling::Average { .. } if dilation != Pair::square(1) => {
                return Err("an average over a dilated window is not in the catalog".into());
            }
            Pooling::Average { count_include_pad } => {
                // Without padding, nothing could count: one spelling for both.
                let unpadded = padding.is_some_and(|padding| padding.sides() == Sides::default());
                let count_include_pad = count_include_pad || (unpadded && !ceil_mode);
                Primitive::AvgPool { kernel, stride, padding, ceil_mode, count_include_pad }
            }
        })
    }

    pub(super) fn adaptive_pool(&mut self, pooling: Pooling) -> Result<Placed, Why> {
        let size = match *self.wanted() {
            [_, _, h, w] => Pair { h: number(h)?, w: number(w)? },
            [_, _, h] => Pair { h: number(h)?, w: 1 },
            _ => return Err("only 1-D and 2-D pooling is in the catalog".into()),
        };
        self.on_map(match pooling {
            Pooling::Average { .. } if size == Pair::square(1) => Primitive::GlobalAvgPool,
            Pooling::Average { .. } => Primitive::AdaptiveAvgPool { size },
            Pooling::Max => Primitive::AdaptiveMaxPool { size },
        })
    }

    pub(super) fn resize(&mut self, linear: bool) -> Result<Placed, Why> {
        let (&[_, _, h, w], &[_, _, new_h, new_w]) = (&self.value(0)?.dims[..], self.wanted())
        else {
            return Err("only maps are resized".into());
        };
        let scale = new_h.checked_div(h).unwrap_or(0);
        if scale == 0 || (new_h, new_w) != (h * scale, w * scale) {
            return Err(format!(
                "from {h}x{w} to {new_h}x{new_w}; the catalog has whole factors that are equal for height and width"
            ));
        }
        let mode = if linear { Interpolation::Bilinear } else { Interpolation::Nearest };
        if scale == 1 {
            return self.argument(0);
        }
        self.on_map(Primitive::Upsample { scale: number(scale)?, mode })
    }
}
