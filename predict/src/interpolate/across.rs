//! What the rows of all ops say together of a shape of one.

use ops_catalog::{Op, OpPlan, Primitive, Shape};

use super::hull::{Hull, Sizes};
use super::{Curves, Estimate, NothingLearned, Rows, distances, point};
use crate::regression::Regression;
use latlas_shared::Row;

/// Fewest ops that say something of another one.
pub(super) const FEWEST_OPS: usize = 10;

/// Rows that are learned from, at most: learning costs the cube of this.
const MOST_ROWS: usize = 240;

/// All ops learned together, by what they are made of.
///
/// An op with a handful of rows (the stem of a network, its head) has too few to be learned by itself, but
/// its latency follows from the same machine as all others'. Its work by kind of primitive stands in for its
/// name: multiply-accumulates of pointwise, dense and grouped convolutions, elements moved, weights, the
/// count of primitives. How wrong that is shows when whole ops are left out; the few rows that the op has
/// make it better than that.
#[derive(Debug)]
pub(super) struct Across {
    hull: Hull,
    curves: Curves,
}

impl Across {
    /// # Errors
    /// When the table has rows of too few ops, or no function goes through them.
    pub(super) fn new(mut ops: Vec<Rows<'_>>) -> Result<Across, NothingLearned> {
        if ops.len() < FEWEST_OPS {
            return Err(NothingLearned::FewOps { ops: ops.len() });
        }
        // Hash maps have no order of their own, and what is learned must not depend on one.
        ops.sort_by(|a, b| a.op().digest().cmp(b.op().digest()));
        let all: Vec<&Row> = ops.iter().flat_map(|rows| rows.iter()).collect();
        let distances = distances(&all);
        let (mut sizes, mut points, mut groups) = (Vec::new(), Vec::new(), Vec::new());
        let share = share_of_each(&ops);
        for (group, rows) in ops.iter().enumerate() {
            let op = rows.op();
            let of_op = rows.iter().filter_map(|row| Sizes::new(op, &row.shape()));
            sizes.extend(of_op);
            for row in spread(rows.iter().collect(), share) {
                let learned = Sizes::new(op, &row.shape()).zip(features(op, &row.shape()));
                let point = learned.and_then(|(sizes, features)| {
                    point(row, features, sizes.log_work(), &distances)
                });
                if let Some(point) = point {
                    points.push(point);
                    groups.push(group);
                }
            }
        }
        let regression = Regression::fit_in_groups(&points, &groups)?;
        Ok(Across { hull: Hull::new(&sizes), curves: Curves { distances, regression } })
    }

    /// # Errors
    /// Says why there is none: a size outside the range of all rows, or too large an error.
    pub(super) fn estimate(
        &self,
        op: &Op,
        shape: &Shape,
        sizes: &Sizes,
        reuse_distance_bytes: f64,
    ) -> Result<Estimate, NothingLearned> {
        self.hull.check(sizes)?;
        let features = features(op, shape).ok_or(NothingLearned::NoSuchShape)?;
        self.curves.estimate(&features, sizes.log_work(), reuse_distance_bytes)
    }
}

/// How many rows of each op are learned from, so that they are [`MOST_ROWS`] at most and ops with few rows
/// keep all of theirs.
fn share_of_each(ops: &[Rows<'_>]) -> usize {
    let taken = |share: usize| ops.iter().map(|rows| rows.len().min(share)).sum::<usize>();
    let largest = ops.iter().map(|rows| rows.len()).max().unwrap_or(0);
    (1..=largest).take_while(|&share| taken(share) <= MOST_ROWS).last().unwrap_or(1)
}

/// At most so many of some rows, spread over all of them in the order of their latency.
fn spread(mut rows: Vec<&Row>, most: usize) -> Vec<&Row> {
    rows.sort_by(|a, b| {
        let order = a.latency_micros.partial_cmp(&b.latency_micros);
        order.unwrap_or(std::cmp::Ordering::Equal).then_with(|| a.key().cmp(&b.key()))
    });
    let count = rows.len();
    let most = most.min(count);
    (0..most).map(|i| rows[(2 * i + 1) * count / (2 * most)]).collect()
}

/// Logarithms of the work by kind, and of the sizes that decide how well it is done.
fn features(op: &Op, shape: &Shape) -> Option<Vec<f64>> {
    let plan = op.at(shape).ok()?;
    let Shape { input_h, channels_in, channels_out, stride, .. } = *shape;
    let work = Work::of(&plan);
    let moved = plan.cost.activation_elements as f64;
    let weights = plan.cost.weight_elements as f64;
    let all = (plan.cost.flops as f64 + moved + weights).max(1.0);
    let logs = [all, plan.cost.flops as f64, moved, weights].map(|value| value.max(1.0).ln());
    // Shares, since of most kinds most ops have nothing, which has no logarithm.
    let shares = [work.pointwise, work.dense, work.grouped, work.other].map(|flops| flops / all);
    let sizes = [plan.steps.len() as u32, input_h, channels_in, channels_out, stride]
        .map(|size| f64::from(size.max(1)).ln());
    Some(logs.into_iter().chain(shares).chain(sizes).collect())
}

/// Multiply-accumulates by kind; `other` is the elements moved by primitives of no kind.
#[derive(Default)]
struct Work {
    pointwise: f64,
    dense: f64,
    grouped: f64,
    other: f64,
}

impl Work {
    fn of(plan: &OpPlan) -> Work {
        let mut work = Work::default();
        for step in &plan.steps {
            let flops = step.cost.flops as f64;
            match step.primitive {
                Primitive::Conv2d { groups, .. } if groups > 1 => work.grouped += flops,
                Primitive::Conv2d { kernel, .. } if kernel > 1 => work.dense += flops,
                Primitive::Conv2d { .. } | Primitive::Linear { .. } => work.pointwise += flops,
                _ => work.other += step.cost.activation_elements as f64,
            }
        }
        work
    }
}
