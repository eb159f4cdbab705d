//! The range of measured shapes.

use std::fmt;

use ops_catalog::{Op, Shape};

/// A size or quotient outside the measured range.
#[derive(Debug, Clone, PartialEq)]
pub struct OutsideRange {
    /// Its name.
    pub size: String,
    /// The requested value.
    pub value: f64,
    /// The smallest measured value.
    pub low: f64,
    /// The largest measured value.
    pub high: f64,
}

impl fmt::Display for OutsideRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let OutsideRange { size, value, low, high } = self;
        let (value, low_shown, high_shown) = (shown(*value), shown(*low), shown(*high));
        if low == high {
            write!(f, "{size} {value} was not measured, only {low_shown}")
        } else {
            write!(f, "{size} {value} is outside the measured range {low_shown} to {high_shown}")
        }
    }
}

impl std::error::Error for OutsideRange {}

/// The sizes that a shape's latency depends on.
#[derive(Debug, Clone)]
pub(crate) struct Sizes {
    values: [f64; 8],
}

const NAMES: [&str; 8] = [
    "FLOPs",
    "elements moved",
    "batch",
    "input_h",
    "input_w",
    "channels_in",
    "channels_out",
    "stride",
];

const FLOPS: usize = 0;
const MOVED: usize = 1;
const BATCH: usize = 2;
const HEIGHT: usize = 3;
const WIDTH: usize = 4;
const CHANNELS_IN: usize = 5;
const CHANNELS_OUT: usize = 6;
const STRIDE: usize = 7;

/// Quotients whose range is checked as well. Rows of square maps say nothing about elongated ones, and rows with equal
/// channels in and out say nothing about rows with more channels out.
const QUOTIENTS: [(usize, usize); 2] = [(WIDTH, HEIGHT), (CHANNELS_OUT, CHANNELS_IN)];

/// Number of sizes and quotients with a range.
const MEASURES: usize = NAMES.len() + QUOTIENTS.len();

impl Sizes {
    /// None if the op does not exist at this shape.
    pub(crate) fn new(op: &Op, shape: &Shape) -> Option<Sizes> {
        let cost = op.at(shape).ok()?.cost;
        let moved = cost.activation_elements as f64 + cost.weight_elements as f64;
        let Shape { batch, input_h, input_w, channels_in, channels_out, stride } = *shape;
        let [n, h, w, i, o, s] =
            [batch, input_h, input_w, channels_in, channels_out, stride].map(f64::from);
        Some(Sizes { values: [cost.flops as f64, moved, n, h, w, i, o, s] })
    }

    /// Logarithm of the multiply-accumulates and elements moved, relative to which latencies are compared.
    pub(crate) fn log_work(&self) -> f64 {
        (self.values[FLOPS] + self.values[MOVED]).max(1.0).ln()
    }

    /// Whether another shape is smaller or equal in every size, at the same stride.
    pub(crate) fn contains(&self, other: &Sizes) -> bool {
        let stride = self.values[STRIDE] == other.values[STRIDE];
        stride && self.values.iter().zip(other.values).all(|(own, other)| other <= *own)
    }

    /// The values with a range: the sizes, then the quotients.
    fn measures(&self) -> [f64; MEASURES] {
        std::array::from_fn(|measure| match measure.checked_sub(NAMES.len()) {
            None => self.values[measure],
            Some(quotient) => {
                let (a, b) = QUOTIENTS[quotient];
                self.values[a] / self.values[b]
            }
        })
    }

    /// Logarithms of the work and the sizes.
    pub(crate) fn features(&self) -> Vec<f64> {
        let sizes = self.values.iter().map(|size| size.max(1.0).ln());
        std::iter::once(self.log_work()).chain(sizes).collect()
    }
}

/// The range of each size and quotient over measured shapes. A shape is inside if all of its values are: a simple rule
/// that can name the size that is outside. FLOPs and elements moved are included, since a shape with large maps and
/// many channels may be far beyond rows that have only one of the two.
#[derive(Debug, Clone)]
pub(crate) struct Hull {
    ranges: [(f64, f64); MEASURES],
}

impl Hull {
    pub(crate) fn new<'a>(measured: impl IntoIterator<Item = &'a Sizes>) -> Hull {
        let nothing = Hull { ranges: [(f64::INFINITY, f64::NEG_INFINITY); MEASURES] };
        measured.into_iter().fold(nothing, |hull, sizes| hull.with(sizes))
    }

    /// # Errors
    /// Names the first size that is outside, and the measured range.
    pub(crate) fn check(&self, sizes: &Sizes) -> Result<(), OutsideRange> {
        // The sizes that the caller wrote come before derived ones.
        let order = (BATCH..NAMES.len()).chain([FLOPS, MOVED]).chain(NAMES.len()..MEASURES);
        let values = sizes.measures();
        for measure in order {
            let (value, (low, high)) = (values[measure], self.ranges[measure]);
            if !(low..=high).contains(&value) {
                return Err(OutsideRange { size: name(measure), value, low, high });
            }
        }
        Ok(())
    }

    /// The hull after one more shape is measured.
    pub(crate) fn with(&self, sizes: &Sizes) -> Hull {
        let mut hull = self.clone();
        for ((low, high), value) in hull.ranges.iter_mut().zip(sizes.measures()) {
            (*low, *high) = (low.min(value), high.max(value));
        }
        hull
    }
}

fn name(measure: usize) -> String {
    match measure.checked_sub(NAMES.len()) {
        None => NAMES[measure].to_owned(),
        Some(quotient) => {
            let (a, b) = QUOTIENTS[quotient];
            format!("{} / {}", NAMES[a], NAMES[b])
        }
    }
}

/// All digits of a size, three of a quotient.
fn shown(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value}") } else { format!("{value:.3}") }
}
