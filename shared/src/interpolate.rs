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
    /// How many rows there are of the kinds that have too few.
    small: HashMap<Kind, usize>,
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
        let mut all = Interpolator { groups: HashMap::new(), small: HashMap::new() };
        for (kind, rows) in rows {
            if rows.len() < FEWEST_ROWS {
                all.small.insert(kind, rows.len());
            } else {
                all.groups.insert(kind, Group::new(rows, reference));
            }
        }
        all
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
        let refused = |why: String| format!("not measured, and not interpolated: {why}");
        let kind = (op.digest().clone(), shape.batch, shape.stride);
        let Some(group) = self.groups.get(&kind) else {
            let rows = self.small.get(&kind).copied().unwrap_or_default();
            return Err(refused(format!(
                "that takes {FEWEST_ROWS} rows of {} at batch {} and stride {}, and the table has {rows}",
                op.name(),
                shape.batch,
                shape.stride
            )));
        };
        let point = Point::new(op, shape)
            .ok_or_else(|| "not measured, and not possible for this op".to_owned())?;
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
    /// `rows` are at least [`FEWEST_ROWS`].
    fn new(rows: Vec<(&'a Row, Point)>, reference_distance: f64) -> Group<'a> {
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
        group
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
mod tests;
