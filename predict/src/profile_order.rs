//! The order in which to measure the rows of a space, so that a part of them already predicts well.

use std::collections::HashMap;
use std::sync::Arc;

use ops_catalog::{Catalog, Family, Network, Op, OpKey, Space};

use crate::TableIndex;
use crate::stats;

/// Number of drawn networks, which determine how often a space's networks use each of its rows.
const NETWORKS: usize = 400;

/// The weight of a row that none of them uses: other networks may use it.
const UNUSED: f64 = 0.1;

/// Ratio of the mean absolute Gaussian error to half of the 90% interval.
const MEAN_OVER_HALF_WIDTH: f64 = 0.798 / 1.645;

/// A smaller relative decrease of the expected error is no improvement.
const IMPROVEMENT: f64 = 0.05;

/// A row that may be measured.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The row.
    pub key: OpKey,
    /// Its op.
    pub op: Arc<Op>,
    /// How often networks use it, in any unit.
    pub uses: f64,
}

/// The rows of a space, and their weights.
#[derive(Debug, Clone)]
pub struct Candidates {
    /// The rows.
    pub rows: Vec<Candidate>,
    /// The number of networks whose uses of rows were counted.
    networks: f64,
}

/// The next rows to measure, and the current expected error.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// The rows, most informative first.
    pub keys: Vec<OpKey>,
    /// The expected error of the candidates' latencies before this batch is measured, weighted by uses and latency, as
    /// a share of their sum, at most 1. A measured row has no error. A row that cannot be estimated leaves each network
    /// that uses it without a prediction, so all of that network's latency counts. Errors are added as if all had the
    /// same sign, so the error of a network is smaller.
    pub expected_error: f64,
}

/// The rows of a space, weighted by how often networks drawn from its family use them. All weights are equal if the
/// space belongs to no family.
pub fn candidates(space: &Space) -> Candidates {
    let family = Family::ALL.into_iter().find(|family| family.name() == space.name);
    let mut uses: HashMap<OpKey, f64> = HashMap::new();
    let catalog = Catalog::builtin();
    for spec in family.iter().flat_map(|family| family.draw(0).take(NETWORKS)) {
        let plan = Network::new(&spec, catalog).and_then(|network| network.plan(catalog));
        // Drawn networks are always valid: the drawing code has a test for that.
        for step in plan.into_iter().flat_map(|plan| plan.steps) {
            *uses.entry(step.key).or_default() += 1.0;
        }
    }
    // Without a family, a row counts as a network of its own.
    let (none, networks) = match family {
        Some(_) => (UNUSED, NETWORKS),
        None => (1.0, space.entries.len()),
    };
    let candidate = |(key, op): &(OpKey, Arc<Op>)| Candidate {
        key: key.clone(),
        op: Arc::clone(op),
        uses: uses.get(key).copied().unwrap_or(none),
    };
    Candidates { rows: space.entries.iter().map(candidate).collect(), networks: networks as f64 }
}

/// Chooses up to `size` rows to measure next: those with the largest expected error, by the interval of their estimate,
/// their latency and their uses. Rows without any estimate come far ahead.
///
/// A row also gives information about other rows of its op. So after each choice the next row of the same op has less
/// weight in this batch, by the number of those already chosen. The estimates after the batch then determine how to
/// continue.
pub fn next_batch(index: &TableIndex, candidates: &Candidates, size: usize) -> Batch {
    let open = open(index, candidates);
    let expected: f64 = open.rows.iter().map(|row| row.error).sum();
    let keys = ranked(open.rows).into_iter().take(size).map(|row| row.key.clone()).collect();
    let share = if open.total > 0.0 { expected / open.total } else { 0.0 };
    Batch { keys, expected_error: share.abs().min(1.0) }
}

/// All rows in an order that is set before anything is measured.
pub fn order_in_advance(candidates: &Candidates) -> Vec<&Candidate> {
    let unknown: Vec<Unknown<'_>> = candidates
        .rows
        .iter()
        .map(|row| Unknown { row, micros: work(&row.op, &row.key) })
        .collect();
    let total: f64 = unknown.iter().map(|unknown| unknown.row.uses * unknown.micros).sum();
    let of_a_network = total / candidates.networks;
    ranked(unknown.into_iter().map(|unknown| unknown.open(of_a_network)).collect())
}

/// The rows, those with the largest weighted error first; the n-th row of an op has 1/n of its error.
fn ranked(mut open: Vec<Open<'_>>) -> Vec<&Candidate> {
    // By key if errors are equal, so that the same table gives the same order.
    open.sort_by(|a, b| b.error.total_cmp(&a.error).then_with(|| a.row.key.cmp(&b.row.key)));
    let mut of_op: HashMap<&str, u32> = HashMap::new();
    for Open { row, error } in &mut open {
        let place = of_op.entry(&row.key.op).or_default();
        *place += 1;
        *error /= f64::from(*place);
    }
    open.sort_by(|a, b| b.error.total_cmp(&a.error));
    open.into_iter().map(|open| open.row).collect()
}

/// A candidate that is not measured.
struct Open<'a> {
    row: &'a Candidate,
    /// Uses times the expected error in microseconds.
    error: f64,
}

/// The unmeasured candidates, and the sum of all candidates' uses times latencies.
struct AllOpen<'a> {
    rows: Vec<Open<'a>>,
    total: f64,
}

fn open<'a>(index: &TableIndex, candidates: &'a Candidates) -> AllOpen<'a> {
    let reference = index.table().run_config.reuse_distance_bytes as f64;
    let rate = usual_rate(index);
    let mut open = AllOpen { rows: Vec::new(), total: 0.0 };
    let mut refused = Vec::new();
    for row in &candidates.rows {
        let Candidate { key, op, uses } = row;
        let micros = match index.row(op, &key.shape) {
            Some(row) => row.latency_micros.unwrap_or(0.0),
            None => match index.estimate(op, &key.shape, reference) {
                Ok(found) => {
                    let error = (found.error.exp_m1() * MEAN_OVER_HALF_WIDTH).min(1.0);
                    open.rows.push(Open { row, error: uses * found.micros * error });
                    found.micros
                }
                Err(_) => {
                    let micros = rate * work(op, key);
                    refused.push(Unknown { row, micros });
                    micros
                }
            },
        };
        open.total += uses * micros;
    }
    let of_a_network = open.total / candidates.networks;
    open.rows.extend(refused.into_iter().map(|unknown| unknown.open(of_a_network)));
    open
}

/// A candidate without an estimate, and a guess of its latency.
struct Unknown<'a> {
    row: &'a Candidate,
    micros: f64,
}

impl<'a> Unknown<'a> {
    /// A network that uses it has no prediction. Among such rows the large ones come first, because they extend the
    /// range of estimates most.
    fn open(self, of_a_network: f64) -> Open<'a> {
        Open { row: self.row, error: self.row.uses * (of_a_network + self.micros) }
    }
}

/// Multiply-accumulates and elements moved: the assumed cost of a shape without an estimate.
fn work(op: &Op, key: &OpKey) -> f64 {
    op.at(&key.shape).map_or(0.0, |plan| (plan.cost.flops + plan.cost.activation_elements) as f64)
}

/// Microseconds per unit of work over all rows.
fn usual_rate(index: &TableIndex) -> f64 {
    let rates: Vec<f64> = index
        .measured()
        .filter_map(|(op, row)| Some(row.latency_micros? / work(op, &row.key()).max(1.0)))
        .collect();
    if rates.is_empty() { 1.0 } else { stats::median(&rates) }
}

/// Size of the next batch when `measured` rows exist: small at first, when each row is very informative, and later
/// large enough to make a difference.
pub fn batch_size(measured: usize) -> usize {
    (measured / 4).max(20)
}

/// The stopping rule: the expected error has reached the target, or no longer decreases.
#[derive(Debug, Clone)]
pub struct Stop {
    target: f64,
    patience: usize,
    best: f64,
    without: usize,
}

impl Stop {
    /// Stops at an expected error of `target`, or after `patience` batches without improvement.
    pub fn new(target: f64, patience: usize) -> Stop {
        Stop { target, patience, best: f64::INFINITY, without: 0 }
    }

    /// Takes the expected error after a batch, and returns the reason to stop, if there is one.
    pub fn after(&mut self, expected_error: f64) -> Option<String> {
        if expected_error <= self.target {
            return Some(format!(
                "the expected error, {:.1}%, is at most {:.1}%",
                100.0 * expected_error,
                100.0 * self.target
            ));
        }
        // As long as nothing can be predicted, each batch helps, although the error does not show it yet.
        if expected_error >= 1.0 || expected_error < self.best * (1.0 - IMPROVEMENT) {
            (self.best, self.without) = (expected_error, 0);
            return None;
        }
        self.without += 1;
        (self.without >= self.patience)
            .then(|| format!("the last {} batches did not lower the expected error", self.without))
    }
}

#[cfg(test)]
mod tests;
