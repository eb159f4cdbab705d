//! Latencies of shapes that were not measured, from measured rows of the same op.

use std::collections::HashMap;

use ops_catalog::{Op, OpDigest, Shape};

use crate::stats;
use crate::table::{Row, TableIndex};

/// Share of left-out rows that an estimate's interval contains.
const COVERAGE: f64 = 0.9;

/// Fewest rows of an op, at one batch and stride, to interpolate from: with fewer, leaving each out
/// does not support a statement about nine shapes in ten.
pub(crate) const FEWEST_ROWS: usize = 9;

/// Neighbours that an estimate is averaged from; more when several are equally near.
const NEIGHBOURS: usize = 4;

/// A shape may be this much farther from its nearest row than the rows are from one another.
const FARTHEST: f64 = 2.0;

/// An estimate that may be off by a larger factor than this is none.
const WIDEST_FACTOR: f64 = 2.0;

/// A shape in log space, with the work that latencies are compared by.
#[derive(Debug, Clone, Copy)]
struct Point {
    at: [f64; 4],
    work: f64,
}

impl Point {
    fn new(op: &Op, shape: &Shape) -> Option<Point> {
        let cost = op.at(shape).ok()?.cost;
        let work =
            cost.flops as f64 + cost.activation_elements as f64 + cost.weight_elements as f64;
        let at = [shape.input_h, shape.input_w, shape.channels_in, shape.channels_out]
            .map(|size| f64::from(size).ln());
        Some(Point { at, work: work.max(1.0) })
    }

    fn distance(&self, other: &Point) -> f64 {
        let squares = self.at.iter().zip(&other.at).map(|(a, b)| (a - b).powi(2));
        squares.sum::<f64>().sqrt()
    }
}

/// Rows of one kind: the digest of an op, a batch and a stride.
type Kind = (OpDigest, u32, u32);

/// A row that an estimate is averaged from, by index into its group.
#[derive(Debug, Clone, Copy)]
struct Neighbour {
    row: usize,
    distance: f64,
}

/// Rows of one op at one batch and stride.
struct Group<'a> {
    /// At least [`FEWEST_ROWS`].
    rows: Vec<(&'a Row, Point)>,
    /// The factor `exp(error)` up or down contains [`COVERAGE`] of the rows when each is left out.
    error: f64,
    /// Median and maximum over the rows of the distance to the nearest other row.
    usual_gap: f64,
    widest_gap: f64,
}

/// Estimates for shapes between measured ones; it never reaches outside the measured range.
///
/// Latency per unit of work (multiply-accumulates and elements moved) changes slowly with the shape, so
/// its logarithm is averaged over the nearest measured shapes in log space, weighted by inverse distance
/// (Shepard's method). The error that is stated is what the same rule makes on measured rows when each
/// is left out, and larger for a shape that is farther from the rows than they are from one another.
pub(crate) struct Interpolator<'a> {
    groups: HashMap<Kind, Group<'a>>,
}

/// An estimate and its error.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Estimate {
    /// Microseconds.
    pub micros: f64,
    /// The factor `exp(error)` up or down contains about 90% of left-out rows.
    pub error: f64,
}

impl<'a> Interpolator<'a> {
    pub(crate) fn new(index: &'a TableIndex) -> Interpolator<'a> {
        let mut rows: HashMap<Kind, Vec<(&Row, Point)>> = HashMap::new();
        for (op, row) in index.measured() {
            let Some(point) = Point::new(op, &row.shape()) else { continue };
            let key = (op.digest().clone(), row.batch, row.stride);
            rows.entry(key).or_default().push((row, point));
        }
        let reference = index.table().run_config.reuse_distance_bytes as f64;
        let groups = rows
            .into_iter()
            .filter_map(|(key, rows)| Some((key, Group::new(rows, reference)?)))
            .collect();
        Interpolator { groups }
    }

    /// An estimate at a reuse distance.
    ///
    /// # Errors
    /// Says why there is none: too few rows, a size outside the measured range, a shape far from
    /// every row, or rows that say too little.
    pub(crate) fn estimate(
        &self,
        op: &Op,
        shape: &Shape,
        reuse_distance_bytes: f64,
    ) -> Result<Estimate, String> {
        let key = (op.digest().clone(), shape.batch, shape.stride);
        let group = self.groups.get(&key).ok_or_else(|| {
            format!(
                "not measured, and not interpolated: that takes at least {FEWEST_ROWS} rows of {} at \
                 batch {} and stride {}",
                op.name(),
                shape.batch,
                shape.stride
            )
        })?;
        let point = Point::new(op, shape)
            .ok_or_else(|| "not measured, and not possible for this op".to_owned())?;
        let refused = |why: String| format!("not measured, and not interpolated: {why}");
        group.check_range(&point).map_err(refused)?;
        let near = group.neighbours(&point, None);
        let nearest = near.first().map_or(f64::INFINITY, |n| n.distance);
        if nearest > FARTHEST * group.widest_gap {
            return Err(refused(format!(
                "no measured shape is near; in its nearest one the sizes differ by a factor of {:.1}",
                nearest.exp()
            )));
        }
        let error = group.error * (nearest / group.usual_gap).max(1.0);
        if error > WIDEST_FACTOR.ln() {
            return Err(refused(format!(
                "the estimate could be off by a factor of {:.1}, as left-out rows show",
                error.exp()
            )));
        }
        let micros = group.average(&point, &near, reuse_distance_bytes);
        Ok(Estimate { micros, error })
    }
}

impl<'a> Group<'a> {
    /// None when there are too few rows.
    fn new(rows: Vec<(&'a Row, Point)>, reference_distance: f64) -> Option<Group<'a>> {
        if rows.len() < FEWEST_ROWS {
            return None;
        }
        let mut group = Group { rows, error: 0.0, usual_gap: 0.0, widest_gap: 0.0 };
        let near: Vec<Vec<Neighbour>> = (0..group.rows.len())
            .map(|left_out| group.neighbours(&group.rows[left_out].1, Some(left_out)))
            .collect();
        let gaps: Vec<f64> = near.iter().map(|near| near[0].distance).collect();
        let gaps = stats::sorted(&gaps);
        group.usual_gap = stats::quantile_of_sorted(&gaps, 0.5);
        group.widest_gap = gaps[gaps.len() - 1];
        // Networks of every size read the curves, so the error is the worst over the curves' length.
        group.error = [0.0, reference_distance, f64::INFINITY]
            .into_iter()
            .map(|distance| group.left_out_error(&near, distance))
            .fold(0.0, f64::max);
        Some(group)
    }

    fn check_range(&self, point: &Point) -> Result<(), String> {
        let names = ["input_h", "input_w", "channels_in", "channels_out"];
        for (dimension, name) in names.into_iter().enumerate() {
            let values = self.rows.iter().map(|(_, p)| p.at[dimension]);
            let low = values.clone().fold(f64::INFINITY, f64::min);
            let high = values.fold(f64::NEG_INFINITY, f64::max);
            let value = point.at[dimension];
            // Logarithms of equal integers are equal, so the comparison is exact.
            if value < low || value > high {
                return Err(format!(
                    "{name} {:.0} is outside the measured range {:.0} to {:.0}",
                    value.exp(),
                    low.exp(),
                    high.exp()
                ));
            }
        }
        Ok(())
    }

    /// The nearest rows, nearest first, with all of those that are as near as the last of them: on a
    /// grid many are, and which of them stands first in the table says nothing.
    fn neighbours(&self, point: &Point, left_out: Option<usize>) -> Vec<Neighbour> {
        let mut near: Vec<Neighbour> = (0..self.rows.len())
            .filter(|&row| Some(row) != left_out)
            .map(|row| Neighbour { row, distance: self.rows[row].1.distance(point) })
            .collect();
        let by_distance = |a: &Neighbour, b: &Neighbour| a.distance.total_cmp(&b.distance);
        let (_, last, _) = near.select_nth_unstable_by(NEIGHBOURS - 1, by_distance);
        let reach = last.distance * (1.0 + 1e-9);
        near.retain(|n| n.distance <= reach);
        near.sort_by(|a, b| by_distance(a, b).then(a.row.cmp(&b.row)));
        near
    }

    /// Weighted mean of the neighbours' latencies per unit of work, times the shape's work.
    fn average(&self, point: &Point, near: &[Neighbour], reuse_distance_bytes: f64) -> f64 {
        let log_rate = |n: &Neighbour| {
            let (row, at) = &self.rows[n.row];
            let micros = row.read_curve(reuse_distance_bytes).map_or(f64::NAN, |(_, m, _)| m);
            (micros / at.work).ln()
        };
        if let Some(same) = near.first().filter(|n| n.distance == 0.0) {
            return log_rate(same).exp() * point.work;
        }
        let total: f64 = near.iter().map(|n| 1.0 / n.distance).sum();
        let mean = near.iter().map(|n| log_rate(n) / n.distance).sum::<f64>() / total;
        mean.exp() * point.work
    }

    /// The order statistic of rank `ceil(COVERAGE * (n + 1))` among the errors of left-out rows: as in
    /// conformal prediction, one rank above the plain quantile, since the next shape is one more.
    fn left_out_error(&self, near: &[Vec<Neighbour>], reuse_distance_bytes: f64) -> f64 {
        let errors: Vec<f64> = self
            .rows
            .iter()
            .zip(near)
            .filter_map(|((row, point), near)| {
                let estimate = self.average(point, near, reuse_distance_bytes);
                let (_, truth, _) = row.read_curve(reuse_distance_bytes)?;
                Some((estimate / truth).ln().abs())
            })
            .collect();
        let errors = stats::sorted(&errors);
        let rank = (COVERAGE * (errors.len() + 1) as f64).ceil() as usize;
        errors[rank.min(errors.len()) - 1]
    }
}

impl Row {
    /// Lower end, value and upper end of the latency at a reuse distance, in microseconds: linear
    /// between the points of the curve, level beyond its ends. None when the row has no number.
    pub fn read_curve(&self, reuse_distance_bytes: f64) -> Option<(f64, f64, f64)> {
        let at = crate::CurvePoint::latency_micros;
        let first = self.curve.first()?;
        let last = self.curve.last()?;
        let x = reuse_distance_bytes;
        if x <= first.reuse_distance_bytes as f64 {
            return Some(at(first));
        }
        if x >= last.reuse_distance_bytes as f64 {
            return Some(at(last));
        }
        let pair = self.curve.windows(2).find(|pair| x <= pair[1].reuse_distance_bytes as f64)?;
        let (x0, x1) = (pair[0].reuse_distance_bytes as f64, pair[1].reuse_distance_bytes as f64);
        let share = (x - x0) / (x1 - x0);
        let (a, b) = (at(&pair[0]), at(&pair[1]));
        let between = |a: f64, b: f64| a + (b - a) * share;
        Some((between(a.0, b.0), between(a.1, b.1), between(a.2, b.2)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::testing::{MIB, key, row, table};
    use ops_catalog::{Catalog, OpKey};
    use proptest::prelude::*;

    fn conv(size: u32, c_in: u32, c_out: u32) -> OpKey {
        key(&format!("Conv3x3:n1-h{size}-w{size}-i{c_in}-o{c_out}-s1"))
    }

    fn estimate(index: &TableIndex, key: &OpKey, distance: f64) -> Result<Estimate, String> {
        let op = Catalog::builtin().op(&key.op).unwrap();
        Interpolator::new(index).estimate(op, &key.shape, distance)
    }

    /// Latency that is not proportional to the work, but nearly: a call costs something, and small
    /// channels use the machine badly.
    fn plausible(key: &OpKey) -> f64 {
        let cost = Catalog::builtin().op(&key.op).unwrap().at(&key.shape).unwrap().cost;
        let efficiency = 1.0 - (-f64::from(key.shape.channels_in) / 24.0).exp();
        2.0 + cost.flops as f64 / 2e4 / efficiency + cost.activation_elements as f64 / 1e4
    }

    const SIZES: [u32; 4] = [14, 28, 56, 112];
    const WIDTHS: [u32; 4] = [16, 32, 64, 96];

    fn grid() -> Vec<OpKey> {
        let mut keys = Vec::new();
        for size in SIZES {
            for c_in in WIDTHS {
                keys.extend(WIDTHS.map(|c_out| conv(size, c_in, c_out)));
            }
        }
        keys
    }

    fn index_of(keys: &[OpKey], micros: impl Fn(&OpKey) -> f64) -> TableIndex {
        TableIndex::new(table(keys.iter().map(|key| row(key, micros(key))).collect())).unwrap()
    }

    #[test]
    fn refusals_say_why() {
        let index = index_of(&grid(), plausible);
        let few = index_of(&grid()[..FEWEST_ROWS - 1], plausible);
        let diagonal: Vec<OpKey> = (1..=12).map(|i| conv(16, 16 * i, 16 * i)).collect();
        let diagonal = index_of(&diagonal, plausible);
        for (index, key, why) in [
            (&index, conv(113, 32, 32), "input_h 113 is outside the measured range 14 to 112"),
            (&index, conv(56, 15, 32), "channels_in 15 is outside the measured range 16 to 96"),
            (&index, conv(56, 32, 97), "channels_out 97 is outside the measured range 16 to 96"),
            (&index, key("Conv3x3:n2-h56-w56-i32-o32-s1"), "at least 9 rows of Conv3x3 at batch 2"),
            (&index, key("Conv3x3:n1-h56-w56-i32-o32-s2"), "at batch 1 and stride 2"),
            (&few, conv(14, 20, 20), "at least 9 rows of Conv3x3 at batch 1 and stride 1"),
            (&diagonal, conv(16, 16, 192), "could be off by a factor of"),
            (&index, key("Conv3x3:n1-h112-w14-i32-o32-s1"), "no measured shape is near"),
        ] {
            let error = estimate(index, &key, 0.0).unwrap_err();
            assert!(error.contains(why), "{key}: {error}");
        }
    }

    #[test]
    fn shapes_between_rows_are_estimated_with_an_error_that_holds() {
        let index = index_of(&grid(), plausible);
        let (mut inside, mut all) = (0, 0);
        for size in [20, 40, 80] {
            for c_in in [24, 48, 80] {
                for c_out in [24, 48, 80] {
                    let key = conv(size, c_in, c_out);
                    let found = estimate(&index, &key, (8 * MIB) as f64).unwrap();
                    let off = (found.micros / plausible(&key)).ln().abs();
                    all += 1;
                    inside += usize::from(off <= found.error);
                }
            }
        }
        assert!(inside * 10 >= all * 9, "{inside} of {all}");
    }

    #[test]
    fn a_shape_far_from_the_rows_has_a_larger_error() {
        let mut keys = grid();
        keys.retain(|key| key.shape.channels_in != 32);
        let index = index_of(&keys, plausible);
        let near = estimate(&index, &conv(56, 62, 64), 0.0).unwrap();
        let far = estimate(&index, &conv(40, 31, 46), 0.0).unwrap();
        assert!(far.error > 1.2 * near.error, "{far:?} {near:?}");
    }

    fn latencies() -> impl Strategy<Value = Vec<f64>> {
        prop::collection::vec(0.9f64..1.1, grid().len()).prop_map(|noise| {
            grid().iter().zip(noise).map(|(key, noise)| plausible(key) * noise).collect()
        })
    }

    fn with(latencies: &[f64]) -> TableIndex {
        let rows = grid().iter().zip(latencies).map(|(key, &micros)| row(key, micros)).collect();
        TableIndex::new(table(rows)).unwrap()
    }

    fn anywhere() -> impl Strategy<Value = OpKey> {
        (10u32..130, 12u32..110, 12u32..110).prop_map(|(size, c_in, c_out)| conv(size, c_in, c_out))
    }

    proptest! {
        #[test]
        fn a_measured_shape_is_estimated_at_its_own_latency(
            latencies in latencies(),
            which in 0..grid().len(),
            distance in 0.0f64..1e8,
        ) {
            let index = with(&latencies);
            let key = &grid()[which];
            let (_, measured, _) = index.table().rows[which].read_curve(distance).unwrap();
            let found = estimate(&index, key, distance).unwrap();
            prop_assert!((found.micros / measured - 1.0).abs() < 1e-9);
        }

        #[test]
        fn shapes_inside_the_measured_range_are_estimated_and_no_others(
            latencies in latencies(),
            key in anywhere(),
        ) {
            let shape = key.shape;
            let inside = (14..=112).contains(&shape.input_h)
                && (16..=96).contains(&shape.channels_in)
                && (16..=96).contains(&shape.channels_out);
            let found = estimate(&with(&latencies), &key, 0.0);
            prop_assert_eq!(found.is_ok(), inside, "{:?}", found);
        }

        #[test]
        fn estimates_scale_with_the_latencies(
            latencies in latencies(),
            key in anywhere(),
            factor in 0.1f64..10.0,
            distance in 0.0f64..1e8,
        ) {
            let scaled: Vec<f64> = latencies.iter().map(|l| l * factor).collect();
            let one = estimate(&with(&latencies), &key, distance);
            let other = estimate(&with(&scaled), &key, distance);
            match (one, other) {
                (Ok(one), Ok(other)) => {
                    prop_assert!((other.micros / one.micros / factor - 1.0).abs() < 1e-9);
                    prop_assert!((other.error - one.error).abs() < 1e-9);
                }
                (one, other) => prop_assert_eq!(one, other),
            }
        }

        /// Neighbours that are equally near count alike, whichever stands first.
        #[test]
        fn the_order_of_rows_does_not_matter(latencies in latencies(), key in anywhere()) {
            let index = with(&latencies);
            let mut reversed = index.table().clone();
            reversed.rows.reverse();
            let reversed = TableIndex::new(reversed).unwrap();
            if let (Ok(one), Ok(other)) = (estimate(&index, &key, 0.0), estimate(&reversed, &key, 0.0)) {
                prop_assert!((other.micros / one.micros - 1.0).abs() < 1e-9);
                prop_assert!((other.error - one.error).abs() < 1e-9);
            }
        }

        #[test]
        fn a_curve_stays_within_its_points(micros in 1.0f64..1e6, a in 0.0f64..1e8, b in 0.0f64..1e8) {
            let row = row(&conv(56, 32, 32), micros);
            let read = |distance| row.read_curve(distance).unwrap();
            let (low, value, high) = read(a);
            prop_assert!(low <= value && value <= high);
            prop_assert!((micros * 0.8..=micros * 1.4 * (1.0 + 1e-12)).contains(&value));
            // This curve rises.
            prop_assert!(read(a.min(b)).1 <= read(a.max(b)).1 * (1.0 + 1e-12));
        }
    }
}
