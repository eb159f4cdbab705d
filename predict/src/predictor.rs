//! Predictions of whole networks from a table.

pub mod calibration;
mod error;
mod packed;

use std::collections::HashSet;
use std::sync::Arc;

use latlas_shared::{Calibration, Contribution, Missing, MissingOp, Origin, Prediction, RowStatus};
use ops_catalog::{Cost, Network, NetworkPlan, Op, OpKey, PlanStep, Shape};

use crate::TableIndex;
use crate::two_clock::{self, OpTimes};

pub use calibration::Features;
pub use error::{NoLatency, PredictError};
pub use packed::{Micros, PackedOp, PackedTable};

/// Bytes that lie between two uses of one weight in any network, beside all of its weights: activations,
/// and what a runtime touches on the way from op to op. Found on four sets of 51 networks each, measured
/// on a processor, whose errors it brought from 5.5% to 3.6% on average; see `docs/predict-method.md`.
const TOUCHED_BESIDE_WEIGHTS: f64 = (8 << 20) as f64;

/// Predicts networks from one table under one rule for missing rows.
pub struct Predictor {
    index: Arc<TableIndex>,
    missing: Missing,
    calibration: Calibration,
}

/// What an op costs at one reuse distance, in microseconds.
struct Times {
    low: f64,
    latency: f64,
    high: f64,
    /// Both of a GPU's clocks.
    clocks: Option<OpTimes>,
    origin: Origin,
}

impl Times {
    /// What two clocks add up. On a processor, where issuing and running are one, the host's stands still
    /// and they come to the sum.
    fn on_two_clocks(&self) -> OpTimes {
        self.clocks.unwrap_or(OpTimes { host_micros: 0.0, device_micros: self.latency })
    }
}

impl Predictor {
    /// A predictor that owns its table, alone or together with others.
    pub fn new(index: impl Into<Arc<TableIndex>>, missing: Missing) -> Predictor {
        let index = index.into();
        let calibration = index.table().calibration.clone().unwrap_or_default();
        Predictor { index, missing, calibration }
    }

    /// The same with another calibration than the table's.
    pub fn with_calibration(self, calibration: Calibration) -> Predictor {
        Predictor { calibration, ..self }
    }

    /// What corrects the sum of the ops.
    pub fn calibration(&self) -> &Calibration {
        &self.calibration
    }

    /// The table that it reads.
    pub fn index(&self) -> &TableIndex {
        &self.index
    }

    /// The latency of a network.
    ///
    /// # Errors
    /// When the network is not valid, or rows are missing: then all of them are listed.
    pub fn predict(&self, network: &Network) -> Result<Prediction, PredictError> {
        let plan = network.plan(self.index.catalog())?;
        self.predict_plan(&plan).map_err(PredictError::Missing)
    }

    /// The latency of a network whose plan is known.
    ///
    /// # Errors
    /// When rows are missing: all of them, each once.
    pub fn predict_plan(&self, plan: &NetworkPlan) -> Result<Prediction, Vec<MissingOp>> {
        self.predict_at(plan, self.footprint(plan))
    }

    /// How many bytes lie between two uses of one weight when this network runs over and over.
    pub fn footprint(&self, plan: &NetworkPlan) -> f64 {
        let element_bytes = self.index.table().run_config.dtype.bytes();
        footprint(plan.cost.weight_bytes(element_bytes) as f64)
    }

    /// The latency of a plan as a part of something larger, whose footprint is given. Predictions at
    /// one footprint add up.
    ///
    /// # Errors
    /// When rows are missing: all of them, each once.
    pub fn predict_at(
        &self,
        plan: &NetworkPlan,
        reuse_distance_bytes: f64,
    ) -> Result<Prediction, Vec<MissingOp>> {
        let mut missing: Vec<MissingOp> = Vec::new();
        let mut asked: HashSet<&OpKey> = HashSet::new();
        let mut ops = Vec::with_capacity(plan.steps.len());
        for step in &plan.steps {
            match self.contribution(step, reuse_distance_bytes) {
                Ok(contribution) => ops.push(contribution),
                Err(why) if asked.insert(&step.key) => {
                    missing.push(MissingOp { key: step.key.clone(), why: why.to_string() });
                }
                Err(_) => {}
            }
        }
        if missing.is_empty() {
            let merges = plan.steps.iter().filter(|step| step.merge.is_some()).count();
            let plain = summed(ops, merges, plan.cost, reuse_distance_bytes);
            Ok(calibrated(plain, &self.calibration))
        } else {
            Err(missing)
        }
    }

    fn contribution(&self, step: &PlanStep, distance: f64) -> Result<Contribution, NoLatency> {
        let times = self.times(&step.op, &step.key.shape, distance)?;
        Ok(Contribution {
            place: step.place.clone(),
            key: step.key.clone(),
            latency_micros: times.latency,
            low_micros: times.low,
            high_micros: times.high,
            host_micros: times.clocks.map(|clocks| clocks.host_micros),
            device_micros: times.clocks.map(|clocks| clocks.device_micros),
            origin: times.origin,
        })
    }

    fn times(&self, op: &Op, shape: &Shape, distance: f64) -> Result<Times, NoLatency> {
        let row = self.index.row(op, shape);
        let suspect = row.filter(|row| row.status == RowStatus::Suspect);
        if let Some(row) = row.filter(|_| suspect.is_none()) {
            return match row.read_curve(distance) {
                Some((low, latency, high)) => {
                    let clocks = row.host_micros(distance).zip(row.device_micros(distance));
                    let clocks = clocks
                        .map(|(host_micros, device_micros)| OpTimes { host_micros, device_micros });
                    Ok(Times { low, latency, high, clocks, origin: Origin::Measured })
                }
                // Its neighbours' numbers would hide that this device cannot run it.
                None => Err(NoLatency::Failed {
                    reason: row.reason.clone().unwrap_or_else(|| "no reason was given".to_owned()),
                }),
            };
        }
        if self.missing == Missing::Error {
            return Err(match suspect {
                Some(row) => NoLatency::Suspect { reason: row.reason.clone().unwrap_or_default() },
                None => self.missing_row(op, shape),
            });
        }
        let estimate = self.index.estimate(op, shape, distance)?;
        let factor = estimate.error.exp();
        let host = self.index.host_micros(op, distance);
        // What is learned are latencies. Where the host is the slower one, they say of the device only that
        // it needs no longer.
        let at_least = host.unwrap_or(0.0);
        Ok(Times {
            low: (estimate.micros / factor).max(at_least),
            latency: estimate.micros.max(at_least),
            high: (estimate.micros * factor).max(at_least),
            clocks: host.map(|host_micros| OpTimes { host_micros, device_micros: estimate.micros }),
            origin: Origin::Interpolated,
        })
    }

    fn missing_row(&self, op: &Op, shape: &Shape) -> NoLatency {
        match self.index.foreign_row(&op.key(*shape)) {
            Some(row) => NoLatency::OtherDefinition {
                op: op.name().to_owned(),
                measured: row.op_digest.clone(),
                known: op.digest().clone(),
            },
            None => NoLatency::NotMeasured,
        }
    }
}

/// The reuse distance of a network with so many bytes of weights.
fn footprint(weight_bytes: f64) -> f64 {
    weight_bytes + TOUCHED_BESIDE_WEIGHTS
}

/// Correlation of the errors of two ops in one prediction: a machine is slow for an hour, and one row may
/// stand for several ops. With it, what the rows alone say contained 92% to 98% of 51 networks in each of
/// four runs.
const CORRELATION: f64 = 0.1;

/// How far the intervals of ops reach to one side, while they are added up.
#[derive(Debug, Clone, Copy, Default)]
struct Reach {
    sum: f64,
    squares: f64,
}

impl Reach {
    fn add(&mut self, micros: f64) {
        self.sum += micros;
        self.squares += micros * micros;
    }

    /// Standard deviations of correlated errors add up so; their intervals are a multiple of them.
    fn micros(self) -> f64 {
        (CORRELATION * self.sum * self.sum + (1.0 - CORRELATION) * self.squares).sqrt()
    }
}

/// An estimate with its interval: how far those of its ops reach, as shares of their sum, and half the width
/// of the relative error of the model, independent of it.
fn interval(latency: f64, below: f64, above: f64, half_width: f64) -> Micros {
    Micros {
        // Nothing takes no time, however wide the interval.
        low: latency * (1.0 - below.hypot(half_width)).max(0.01),
        latency,
        high: latency * (1.0 + above.hypot(half_width)),
    }
}

fn summed(
    ops: Vec<Contribution>,
    merges: usize,
    cost: Cost,
    reuse_distance_bytes: f64,
) -> Prediction {
    let sum = |part: fn(&Contribution) -> f64| ops.iter().map(part).sum::<f64>();
    let measured = sum(|op| match op.origin {
        Origin::Measured => op.latency_micros,
        Origin::Interpolated => 0.0,
    });
    // Without host times the two clocks come to the sum.
    let times = ops.iter().map(|op| OpTimes {
        host_micros: op.host_micros.unwrap_or(0.0),
        device_micros: op.device_micros.unwrap_or(op.latency_micros),
    });
    let ops_micros = two_clock::network_micros(times, 0.0);
    Prediction {
        latency_micros: ops_micros,
        low_micros: ops_micros,
        high_micros: ops_micros,
        ops_micros,
        merges: u32::try_from(merges).unwrap_or(u32::MAX),
        calibration_networks: 0,
        measured_share: measured / sum(|op| op.latency_micros),
        reuse_distance_bytes,
        flops: cost.flops,
        params: cost.params,
        ops,
    }
}

/// The same ops under another calibration.
pub fn calibrated(mut prediction: Prediction, calibration: &Calibration) -> Prediction {
    let total: f64 = prediction.ops.iter().map(|op| op.latency_micros).sum();
    let (mut below, mut above) = (Reach::default(), Reach::default());
    for op in &prediction.ops {
        below.add(op.latency_micros - op.low_micros);
        above.add(op.high_micros - op.latency_micros);
    }
    let Micros { low, latency, high } = interval(
        calibration::apply(calibration, features(&prediction)),
        below.micros() / total,
        above.micros() / total,
        calibration::half_width(calibration),
    );
    prediction.latency_micros = latency;
    prediction.low_micros = low;
    prediction.high_micros = high;
    prediction.calibration_networks = calibration.networks;
    prediction
}

/// What a calibration is fitted on, beside the measured latency.
pub fn features(prediction: &Prediction) -> Features {
    let (ops, merges) = (prediction.ops.len() as f64, f64::from(prediction.merges));
    Features { ops_micros: prediction.ops_micros, ops, merges }
}

#[cfg(test)]
mod tests;
