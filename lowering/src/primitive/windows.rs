//! Windows over maps: padding, and pools.

use ops_catalog::{Padding, Pair, Primitive, Sides, Step};
use tch::Tensor;

use super::{Kernel, Outcome};

/// Height and width as libtorch takes them.
pub(super) fn pair(pair: Pair<u32>) -> [i64; 2] {
    pair.parts().map(i64::from)
}

/// The padding of a window. libtorch pads opposite sides alike, so any other padding is a copy before it.
#[derive(Clone, Copy)]
pub(super) struct Padded {
    /// What the function itself pads.
    pub(super) inside: [i64; 2],
    /// What is padded before it: left, right, top and bottom.
    before: Option<[i64; 4]>,
}

impl Padded {
    pub(super) fn new(padding: Option<Padding>) -> Padded {
        let sides = padding.map_or_else(Sides::default, Padding::sides);
        match sides.as_symmetric() {
            Some(both) => Padded { inside: both.map(i64::from), before: None },
            None => {
                let Sides { top, bottom, left, right } = sides;
                Padded { inside: [0, 0], before: Some([left, right, top, bottom].map(i64::from)) }
            }
        }
    }

    /// The map with what is padded before the function.
    pub(super) fn pad(&self, x: &Tensor, value: f64) -> Outcome {
        match &self.before {
            Some(sides) => x.f_pad(sides, "constant", Some(value)),
            None => Ok(x.shallow_clone()),
        }
    }
}

pub(super) fn max_pool(step: &Step) -> Kernel {
    let Primitive::MaxPool { kernel, stride, dilation, padding, ceil_mode } = step.primitive else {
        unreachable!("the caller has a pool")
    };
    let (kernel, stride, dilation) = (pair(kernel), pair(stride), pair(dilation));
    let padded = Padded::new(padding);
    Kernel::of_one(move |x| {
        let x = padded.pad(x, f64::NEG_INFINITY)?;
        x.f_max_pool2d(kernel, stride, padded.inside, dilation, ceil_mode)
    })
}

pub(super) fn avg_pool(step: &Step) -> Kernel {
    let Primitive::AvgPool { kernel, stride, padding, ceil_mode, count_include_pad } =
        step.primitive
    else {
        unreachable!("the caller has a pool")
    };
    let (kernel, stride, padded) = (pair(kernel), pair(stride), Padded::new(padding));
    let mean = move |x: &Tensor| {
        let x = padded.pad(x, 0.0)?;
        x.f_avg_pool2d(kernel, stride, padded.inside, ceil_mode, count_include_pad, None)
    };
    if count_include_pad || padded.before.is_none() {
        return Kernel::of_one(mean);
    }
    Kernel::of_one(move |x| {
        // The share of each window that lies on the map.
        let map = x.f_narrow(0, 0, 1)?.f_narrow(1, 0, 1)?.f_ones_like()?;
        mean(x)?.f_div(&mean(&map)?)
    })
}
