//! Estimates for one op from the rows of all ops together.

use ops_catalog::{Op, OpPlan, Pair, Primitive, Shape};

use super::hull::{Hull, Sizes};
use super::{Curves, Estimate, NothingLearned, Rows, distances, point};
use crate::regression::Regression;
use latlas_shared::Row;

/// Fewest ops for an estimate of another one.
pub(super) const FEWEST_OPS: usize = 10;

/// The most rows that are learned from: the cost of learning is cubic in this number.
const MOST_ROWS: usize = 240;

/// All ops learned together, by their composition.
///
/// An op with a handful of rows (the stem of a network, its head) has too few to be learned alone, but its latency
/// depends on the same machine as all others. Its name is replaced by its work by kind of primitive:
/// multiply-accumulates of pointwise, dense and grouped convolutions, elements moved, weights, the number of
/// primitives. The error is determined by leaving out whole ops; the few rows of the op itself make it smaller.
#[derive(Debug)]
pub(super) struct Across {
    hull: Hull,
    curves: Curves,
}

impl Across {
    /// # Errors
    /// When the table has rows of too few ops, or no function fits them.
    pub(super) fn new(mut ops: Vec<Rows<'_>>) -> Result<Across, NothingLearned> {
        if ops.len() < FEWEST_OPS {
            return Err(NothingLearned::FewOps { ops: ops.len() });
        }
        // Hash maps have no fixed order, and the learned model must not depend on their order.
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
    /// The reason why there is none: a size outside the range of all rows, or too large an error.
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

/// The number of rows of each op to learn from, so that their total is at most [`MOST_ROWS`] and ops with few rows keep
/// all of theirs.
fn share_of_each(ops: &[Rows<'_>]) -> usize {
    let taken = |share: usize| ops.iter().map(|rows| rows.len().min(share)).sum::<usize>();
    let largest = ops.iter().map(|rows| rows.len()).max().unwrap_or(0);
    (1..=largest).take_while(|&share| taken(share) <= MOST_ROWS).last().unwrap_or(1)
}

/// A limited number of rows, spread over all of them in the order of their latency.
fn spread(mut rows: Vec<&Row>, most: usize) -> Vec<&Row> {
    rows.sort_by(|a, b| {
        let order = a.latency_micros.partial_cmp(&b.latency_micros);
        order.unwrap_or(std::cmp::Ordering::Equal).then_with(|| a.key().cmp(&b.key()))
    });
    let count = rows.len();
    let most = most.min(count);
    (0..most).map(|i| rows[(2 * i + 1) * count / (2 * most)]).collect()
}

/// Logarithms of the work by kind, and of the sizes that determine its efficiency.
fn features(op: &Op, shape: &Shape) -> Option<Vec<f64>> {
    let plan = op.at(shape).ok()?;
    let Shape { input_h, channels_in, channels_out, stride, .. } = *shape;
    let work = Work::of(&plan);
    let moved = plan.cost.activation_elements as f64;
    let weights = plan.cost.weight_elements as f64;
    let all = (plan.cost.flops as f64 + moved + weights).max(1.0);
    let logs = [all, plan.cost.flops as f64, moved, weights].map(|value| value.max(1.0).ln());
    // Shares are used because most ops have no work of most kinds, and zero has no logarithm.
    let shares = [work.pointwise, work.dense, work.grouped, work.other].map(|flops| flops / all);
    let sizes = [plan.steps.len() as u32, input_h, channels_in, channels_out, stride]
        .map(|size| f64::from(size.max(1)).ln());
    Some(logs.into_iter().chain(shares).chain(sizes).collect())
}

/// Multiply-accumulates by kind; `other` is the elements moved by the remaining primitives.
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
                Primitive::Conv2d { groups, .. }
                | Primitive::Conv1d { groups, .. }
                | Primitive::ConvTranspose2d { groups, .. }
                    if groups > 1 =>
                {
                    work.grouped += flops;
                }
                Primitive::Conv2d { kernel, .. } if kernel != Pair::square(1) => {
                    work.dense += flops
                }
                Primitive::Conv1d { .. } | Primitive::ConvTranspose2d { .. } => work.dense += flops,
                Primitive::Conv2d { .. } | Primitive::Linear { .. } => work.pointwise += flops,
                _ => work.other += step.cost.activation_elements as f64,
            }
        }
        work
    }
}
