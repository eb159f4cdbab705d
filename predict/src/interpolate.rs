//! Latencies of shapes that were not measured, learned from measured rows of the same op.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use ops_catalog::{Op, OpDigest, Shape};

use crate::regression::{FEWEST_POINTS, Guess, Point, Regression};
use crate::stats;
use latlas_shared::Row;

mod across;
mod error;
pub(crate) mod hull;

use across::Across;
pub use error::{EstimateError, NothingLearned};
pub use hull::OutsideRange;
use hull::{Hull, Sizes};

/// An estimate that may be off by a larger factor is refused. The limit is large, since such an op may be a small part
/// of a network, whose interval shows how much it matters.
const WIDEST_FACTOR: f64 = 5.0;

/// Standard deviations of one measurement in half of a row's interval: the interval has a coverage of 95%, and is made
/// for a repetition, which has an error as well.
const DEVIATIONS: f64 = 1.96 * std::f64::consts::SQRT_2;

/// How much slower per unit of work a smaller shape may be for its own reasons, such as channels that do not fill a
/// vector.
const OWN_REASONS: f64 = 2.0;

/// Estimates for shapes between measured ones; it never extrapolates beyond the largest.
///
/// Latency per unit of work (multiply-accumulates and elements moved) is learned per op, in logarithms, as a function
/// of the shape, its multiply-accumulates and the elements it moves; see [`crate::regression`]. All batches and strides
/// of an op are learned together. If the rows of an op are too few or do not surround a shape, all ops are learned
/// together, see [`Across`]. A shape smaller than all of them is bounded by the next larger row, see [`Rows::bounded`].
///
/// It belongs to the index of one table, which passes the table's rows with each call. The model of an op is learned
/// once, by the first caller; concurrent callers wait for it.
#[derive(Debug)]
pub(crate) struct Interpolator {
    ops: HashMap<OpDigest, RowsOfOp>,
    across: OnceLock<Result<Across, NothingLearned>>,
    /// Number of learned models.
    learned: AtomicUsize,
}

/// The indices of one op's measured rows in their table, and the model learned from them.
#[derive(Debug)]
struct RowsOfOp {
    op: Arc<Op>,
    rows: Vec<usize>,
    learned: OnceLock<Result<Learned, NothingLearned>>,
}

/// An estimate and its error.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Estimate {
    /// Microseconds.
    pub micros: f64,
    /// The factor `exp(error)` up or down contains about 90% of left-out rows.
    pub error: f64,
    /// Increase per byte of reuse distance, in microseconds.
    pub micros_per_byte: f64,
}

/// Rows of one op.
#[derive(Clone, Copy)]
struct Rows<'a> {
    of: &'a RowsOfOp,
    table: &'a [Row],
}

/// The model learned from the rows of one op.
#[derive(Debug)]
struct Learned {
    hull: Hull,
    curves: Curves,
}

/// Latencies per unit of work along the reuse distance.
#[derive(Debug)]
struct Curves {
    /// The reuse distances of the curves' points, ascending; the regression's quantities are the
    /// latencies there.
    distances: Vec<u64>,
    regression: Regression,
}

impl Interpolator {
    /// From the measured rows of a table, as indices into it.
    pub(crate) fn new<'a>(measured: impl Iterator<Item = (&'a Arc<Op>, usize)>) -> Interpolator {
        let mut ops: HashMap<OpDigest, RowsOfOp> = HashMap::new();
        for (op, row) in measured {
            let new =
                || RowsOfOp { op: Arc::clone(op), rows: Vec::new(), learned: OnceLock::new() };
            ops.entry(op.digest().clone()).or_insert_with(new).rows.push(row);
        }
        Interpolator { ops, across: OnceLock::new(), learned: AtomicUsize::new(0) }
    }

    /// The number of models learned so far: one per op, and one across all ops.
    pub(crate) fn times_learned(&self) -> usize {
        self.learned.load(Ordering::Relaxed)
    }

    /// An estimate at a reuse distance. `table` has the rows from which this was created. The first estimate of an op
    /// takes longer, because it learns from the op's rows.
    ///
    /// # Errors
    /// The reason why there is none: no rows or too few, a size outside the measured range, or rows that say too little
    /// about this shape.
    pub(crate) fn estimate(
        &self,
        table: &[Row],
        op: &Op,
        shape: &Shape,
        reuse_distance_bytes: f64,
    ) -> Result<Estimate, EstimateError> {
        let Some(rows) = self.ops.get(op.digest()).map(|of| Rows { of, table }) else {
            return Err(EstimateError::NoRow { op: op.name().to_owned() });
        };
        let sizes = Sizes::new(op, shape).ok_or(EstimateError::Impossible)?;
        let own = match rows.estimate(&sizes, reuse_distance_bytes, &self.learned) {
            Ok(estimate) => return Ok(estimate),
            Err(why) => why,
        };
        let across = self.across.get_or_init(|| {
            self.learned.fetch_add(1, Ordering::Relaxed);
            Across::new(self.ops.values().map(|of| Rows { of, table }).collect())
        });
        let estimate = |across: &Across| across.estimate(op, shape, &sizes, reuse_distance_bytes);
        across.as_ref().map_err(NothingLearned::clone).and_then(estimate).or_else(|across| {
            rows.bounded(&sizes, reuse_distance_bytes)
                .ok_or(EstimateError::NothingLearned { own, across })
        })
    }

    /// The host time of issuing an op at any shape: the median of the op's rows, since issuing takes equally long for
    /// small and large shapes. None unless each row has a host time.
    pub(crate) fn host_micros(
        &self,
        table: &[Row],
        op: &Op,
        reuse_distance_bytes: f64,
    ) -> Option<f64> {
        let of = self.ops.get(op.digest())?;
        let times: Option<Vec<f64>> =
            Rows { of, table }.iter().map(|row| row.host_micros(reuse_distance_bytes)).collect();
        Some(stats::median(&times?))
    }
}

impl<'a> Rows<'a> {
    fn op(self) -> &'a Op {
        &self.of.op
    }

    fn len(self) -> usize {
        self.of.rows.len()
    }

    fn iter(self) -> impl Iterator<Item = &'a Row> {
        self.of.rows.iter().map(move |&row| &self.table[row])
    }

    /// From the rows of the op itself.
    fn estimate(
        &self,
        sizes: &Sizes,
        reuse_distance_bytes: f64,
        times_learned: &AtomicUsize,
    ) -> Result<Estimate, NothingLearned> {
        if self.len() < FEWEST_POINTS {
            let op = self.op().name().to_owned();
            return Err(NothingLearned::FewRows { op, rows: self.len() });
        }
        let learned = self.of.learned.get_or_init(|| {
            times_learned.fetch_add(1, Ordering::Relaxed);
            Learned::of_op(self.op(), &self.iter().collect::<Vec<_>>())
        });
        let learned = learned.as_ref().map_err(NothingLearned::clone)?;
        learned.hull.check(sizes)?;
        learned.curves.estimate(&sizes.features(), sizes.log_work(), reuse_distance_bytes)
    }

    /// Uses the row with the least work among those that are larger in every size. A smaller shape takes less time, but
    /// more time per unit of work. So its latency is between that row's latency times the ratio of work and that row's
    /// latency, except for [`OWN_REASONS`]. Without this bound, the smallest ops would leave a network without any
    /// prediction.
    fn bounded(&self, sizes: &Sizes, reuse_distance_bytes: f64) -> Option<Estimate> {
        let larger = |row: &Row| {
            let of_row = Sizes::new(self.op(), &row.shape())?;
            let (_, micros, _) = row.read_curve(reuse_distance_bytes)?;
            let less_work = of_row.log_work() - sizes.log_work();
            let slope = row.micros_per_byte(reuse_distance_bytes);
            of_row.contains(sizes).then_some((less_work, micros, slope))
        };
        let rows = self.iter().filter_map(larger);
        let (less_work, micros, slope) = rows.min_by(|a, b| a.0.total_cmp(&b.0))?;
        let error = less_work / 2.0 + OWN_REASONS.ln();
        let share = (-less_work / 2.0).exp();
        let estimate = Estimate { micros: micros * share, error, micros_per_byte: slope * share };
        (error <= WIDEST_FACTOR.ln()).then_some(estimate)
    }
}

impl Learned {
    fn of_op(op: &Op, rows: &[&Row]) -> Result<Learned, NothingLearned> {
        let distances = distances(rows);
        let learn_from = |row: &&Row| {
            let sizes = Sizes::new(op, &row.shape())?;
            let point = point(row, sizes.features(), sizes.log_work(), &distances)?;
            Some((sizes, point))
        };
        let (sizes, points): (Vec<Sizes>, Vec<Point>) = rows.iter().filter_map(learn_from).unzip();
        let regression = Regression::fit(&points)?;
        Ok(Learned { hull: Hull::new(&sizes), curves: Curves { distances, regression } })
    }
}

/// Reuse distances of the rows' curves, ascending.
fn distances(rows: &[&Row]) -> Vec<u64> {
    let curves = rows.iter().flat_map(|row| &row.curve);
    let mut distances: Vec<u64> = curves.map(|point| point.reuse_distance_bytes).collect();
    distances.sort_unstable();
    distances.dedup();
    distances
}

/// A row's latency per unit of work, as a function of some features.
fn point(row: &Row, features: Vec<f64>, log_work: f64, distances: &[u64]) -> Option<Point> {
    let target = |&distance: &u64| {
        let (_, micros, _) = row.read_curve(distance as f64)?;
        Some(micros.ln() - log_work)
    };
    Some(Point {
        features,
        targets: distances.iter().map(target).collect::<Option<Vec<f64>>>()?,
        variance: (row.ci95_rel.unwrap_or_default() / DEVIATIONS).powi(2),
    })
}

impl Curves {
    /// Interpolates linearly between two distances of the curves, as for reading rows.
    ///
    /// # Errors
    /// When the error is too large for an estimate.
    fn estimate(
        &self,
        features: &[f64],
        log_work: f64,
        reuse_distance_bytes: f64,
    ) -> Result<Estimate, NothingLearned> {
        let guesses = self.regression.at(features);
        let micros = |guess: &Guess| (guess.value + log_work).exp();
        let x = reuse_distance_bytes;
        let above = self.distances.partition_point(|&distance| (distance as f64) < x);
        let below = above.saturating_sub(1);
        let above = above.min(self.distances.len() - 1);
        let (a, b) = (micros(&guesses[below]), micros(&guesses[above]));
        let (x0, x1) = (self.distances[below] as f64, self.distances[above] as f64);
        let level = below == above;
        let micros_per_byte = if level { 0.0 } else { (b - a) / (x1 - x0) };
        let estimate = Estimate {
            micros: if level { a } else { a + micros_per_byte * (x - x0) },
            error: guesses[below].error.max(guesses[above].error),
            micros_per_byte,
        };
        if estimate.error > WIDEST_FACTOR.ln() {
            return Err(NothingLearned::TooUncertain { factor: estimate.error.exp() });
        }
        Ok(estimate)
    }
}

#[cfg(test)]
mod tests;
