//! Numbers that follow from the definition of a primitive alone, for everything that runs one: the lowering, and the
//! export to ONNX.

/// Added to a variance before its root is taken, in batch norms and group norms.
pub const BATCH_NORM_EPSILON: f64 = 1e-5;

/// Added to a variance, or to a mean square, before its root is taken, in layer norms and RMS norms.
pub const LAYER_NORM_EPSILON: f64 = 1e-6;

/// The values that a weight has before training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// Normally distributed around zero.
    Normal {
        /// Standard deviation.
        deviation: f64,
    },
    /// Ones.
    Ones,
    /// Zeros.
    Zeros,
}

impl Init {
    /// For products over `terms` terms, which keep unit variance.
    pub fn scaled(terms: i64) -> Init {
        Init::Normal { deviation: 1.0 / (terms.max(1) as f64).sqrt() }
    }

    /// Small values, as biases have.
    pub const SMALL: Init = Init::Normal { deviation: 0.1 };

    /// Values of one weight, without end. They depend on the seed and on the weight's name alone.
    pub fn values(self, seed: u64, name: &str) -> impl Iterator<Item = f32> + use<> {
        let mut rng = fastrand::Rng::with_seed(seed ^ fnv1a(name));
        std::iter::repeat_with(move || match self {
            Init::Normal { deviation } => {
                // Box and Muller.
                let (radius, angle) = (1.0 - rng.f32(), rng.f32());
                let normal = (-2.0 * radius.ln()).sqrt() * (std::f32::consts::TAU * angle).cos();
                normal * deviation as f32
            }
            Init::Ones => 1.0,
            Init::Zeros => 0.0,
        })
    }
}

/// A hash that is the same in every release and on every machine.
fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The angle by which `rotary` turns channel `channel` of a head of `size` channels at a position: the channels `i` and
/// `i + size / 2` turn by `position / 10000^(2 i / size)`.
pub fn rotary_angle(position: u64, channel: u64, size: u64) -> f64 {
    let exponent = 2.0 * (channel % (size / 2)) as f64 / size as f64;
    position as f64 / 10_000f64.powf(exponent)
}

/// The windows of `window_attention` on a map. Sizes are along the height and along the width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShiftedWindows {
    /// Height and width of a window.
    pub side: i64,
    /// The map.
    pub map: [i64; 2],
    /// The map, padded at the bottom and at the right to whole windows.
    pub padded: [i64; 2],
    /// How far the padded map is rolled towards its beginning.
    pub shift: [i64; 2],
    /// Whether the positions of a window are spread over the map.
    pub grid: bool,
}

impl ShiftedWindows {
    /// The windows of a map. A dimension of one window is not shifted, as in torchvision.
    pub fn new(map: [i64; 2], side: i64, shift: i64, grid: bool) -> ShiftedWindows {
        let padded = map.map(|size| (size + side - 1) / side * side);
        let shift = padded.map(|size| if size > side { shift } else { 0 });
        ShiftedWindows { side, map, padded, shift, grid }
    }

    /// Number of windows.
    pub fn count(&self) -> i64 {
        self.padded[0] / self.side * (self.padded[1] / self.side)
    }

    /// Number of places of a window.
    pub fn places(&self) -> i64 {
        self.side * self.side
    }

    /// Number of relative positions of two places: the rows of the table of biases.
    pub fn offsets(&self) -> i64 {
        (2 * self.side - 1) * (2 * self.side - 1)
    }

    /// The row in the table of biases for a query and a key, which are places of one window.
    pub fn offset(&self, query: i64, key: i64) -> i64 {
        let side = self.side;
        let (y, x) = (query / side - key / side, query % side - key % side);
        (y + side - 1) * (2 * side - 1) + (x + side - 1)
    }

    /// Whether two places of a window see each other: not if they came together only through the shift.
    pub fn see_each_other(&self, window: i64, query: i64, key: i64) -> bool {
        let across = self.padded[1] / self.side;
        let corner = [window / across * self.side, window % across * self.side];
        let regions = |place: i64| {
            let at = [corner[0] + place / self.side, corner[1] + place % self.side];
            [0, 1].map(|dim| self.region(at[dim], dim))
        };
        regions(query) == regions(key)
    }

    /// The part of the rolled map that a position lies in, along one dimension.
    fn region(&self, at: i64, dim: usize) -> u8 {
        let (size, shift) = (self.padded[dim], self.shift[dim]);
        match at {
            _ if shift == 0 => 0,
            at if at < size - self.side => 0,
            at if at < size - shift => 1,
            _ => 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_and_a_name_decide_on_values() {
        let values =
            |seed: u64, name: &str| Init::SMALL.values(seed, name).take(1000).collect::<Vec<f32>>();
        assert_eq!(values(1, "a.weight"), values(1, "a.weight"));
        assert_ne!(values(1, "a.weight"), values(2, "a.weight"));
        assert_ne!(values(1, "a.weight"), values(1, "b.weight"));
        let square: f32 = values(1, "a.weight").iter().map(|value| value * value).sum();
        assert!((square / 1000.0 - 0.01).abs() < 0.002, "{square}");
        assert_eq!(Init::Ones.values(1, "a").take(2).collect::<Vec<f32>>(), [1.0, 1.0]);
    }

    /// The reading order of a window of 2 is (0, 0), (0, 1), (1, 0), (1, 1).
    #[test]
    fn relative_positions_have_a_row_each() {
        let windows = ShiftedWindows::new([4, 4], 2, 0, false);
        assert_eq!((windows.count(), windows.places(), windows.offsets()), (4, 4, 9));
        assert_eq!(windows.offset(0, 0), 4);
        assert_eq!((windows.offset(0, 3), windows.offset(3, 0)), (0, 8));
        assert_eq!((windows.offset(1, 0), windows.offset(0, 1)), (5, 3));
    }

    /// A map of 4 rolled by 1 holds the rows 1, 2, 3 and 0: the last window has two rows that were far apart.
    #[test]
    fn a_shift_separates_what_it_brought_together() {
        let windows = ShiftedWindows::new([4, 2], 2, 1, false);
        assert_eq!(windows.shift, [1, 0]);
        assert!(windows.see_each_other(0, 0, 2));
        assert!(!windows.see_each_other(1, 0, 2));
        assert!(windows.see_each_other(1, 0, 1));
        let one = ShiftedWindows::new([3, 3], 4, 2, false);
        assert_eq!((one.padded, one.shift, one.count()), ([4, 4], [0, 0], 1));
    }
}
