//! Predictions of whole networks from a table.

pub mod calibration;
mod error;
mod packed;
mod sums;

use std::collections::HashSet;
use std::sync::Arc;

use latlas_shared::{Calibration, Contribution, Missing, MissingOp, Origin, Prediction, RowStatus};
use ops_catalog::{Cost, Network, NetworkPlan, Op, OpKey, PlanStep, Shape};

use crate::TableIndex;
use crate::two_clock::OpTimes;
use sums::{OpCost, Sums};

pub use calibration::{Features, Micros};
pub use error::{NoLatency, PredictError};
pub use packed::{PackedOp, PackedTable};

/// Half the width of a 95% interval of a normal error, in standard deviations.
const NORMAL_95: f64 = 1.96;

/// Conversion from the 90% interval of an estimate to the 95% interval of a measured row.
const FROM_90_TO_95: f64 = NORMAL_95 / 1.645;

const MIB: f64 = (1 << 20) as f64;

/// Predicts networks from one table under one rule for missing rows.
pub struct Predictor {
    index: Arc<TableIndex>,
    missing: Missing,
    calibration: Calibration,
}

/// The cost of an op at one reuse distance, in microseconds.
struct Times {
    low: f64,
    latency: f64,
    high: f64,
    micros_per_mib: f64,
    unquiet: f64,
    /// Times of both clocks, on a GPU.
    clocks: Option<OpTimes>,
    origin: Origin,
}

impl Times {
    fn cost(&self) -> OpCost {
        let on_a_processor = OpTimes { host_micros: 0.0, device_micros: self.latency };
        OpCost {
            latency: self.latency,
            error: (self.high - self.low) / 2.0 / NORMAL_95,
            unquiet: self.unquiet,
            clocks: self.clocks.unwrap_or(on_a_processor),
        }
    }
}

/// A network's ops at one footprint, before calibration.
struct Parts {
    sums: Sums,
    ops: Vec<Contribution>,
    merges: usize,
    cost: Cost,
    reuse_distance_bytes: f64,
}

impl Predictor {
    /// A predictor on a table, which may be shared. A table without a calibration gets the prior calibration of an
    /// unknown box.
    pub fn new(index: impl Into<Arc<TableIndex>>, missing: Missing) -> Predictor {
        let index = index.into();
        let calibration = index.table().calibration.clone();
        let calibration = calibration.unwrap_or_else(|| calibration::uncalibrated(&index.prior()));
        Predictor { index, missing, calibration }
    }

    /// The same with a calibration other than the table's.
    pub fn with_calibration(self, calibration: Calibration) -> Predictor {
        Predictor { calibration, ..self }
    }

    /// The correction of the sum of the ops.
    pub fn calibration(&self) -> &Calibration {
        &self.calibration
    }

    /// The index of its table.
    pub fn index(&self) -> &TableIndex {
        &self.index
    }

    /// The latency of a network.
    ///
    /// # Errors
    /// When the network is invalid, or rows are missing; all missing rows are listed then.
    pub fn predict(&self, network: &Network) -> Result<Prediction, PredictError> {
        let plan = network.plan(self.index.catalog())?;
        self.predict_plan(&plan).map_err(PredictError::Missing)
    }

    /// The latency of a network with a known plan.
    ///
    /// # Errors
    /// When rows are missing: all of them, each once.
    pub fn predict_plan(&self, plan: &NetworkPlan) -> Result<Prediction, Vec<MissingOp>> {
        let parts = self.parts(plan, self.calibration.footprint_mib)?;
        Ok(parts.prediction(&self.calibration))
    }

    /// The rows that predictions of some networks lack, each once, in the order of the networks.
    pub fn missing<'a>(&self, plans: impl IntoIterator<Item = &'a NetworkPlan>) -> Vec<MissingOp> {
        let lacking = plans.into_iter().filter_map(|plan| self.predict_plan(plan).err());
        let mut asked = HashSet::new();
        lacking.flatten().filter(|op| asked.insert(op.key.clone())).collect()
    }

    /// The latency of a network under a calibration other than the predictor's.
    ///
    /// # Errors
    /// As for [`Predictor::predict_plan`].
    pub(crate) fn predict_with(
        &self,
        plan: &NetworkPlan,
        calibration: &Calibration,
    ) -> Result<Prediction, Vec<MissingOp>> {
        Ok(self.parts(plan, calibration.footprint_mib)?.prediction(calibration))
    }

    /// What ops add to the latency of a sequence whose weights have so many bytes, in microseconds, so that a search can
    /// weigh them against one another. On a processor, the shares of the ops of such a sequence add up to its
    /// prediction. On a GPU they add up to more, since host and device work at the same time.
    ///
    /// # Errors
    /// When rows are missing: all of them, each once.
    pub fn shares(
        &self,
        ops: &[(&Op, Shape)],
        weight_bytes: f64,
    ) -> Result<Vec<f64>, Vec<MissingOp>> {
        let Calibration { scale, footprint_mib, unquiet, per_op_micros, .. } = self.calibration;
        let distance = Predictor::footprint_bytes(weight_bytes, footprint_mib);
        let mut shares = Vec::with_capacity(ops.len());
        let mut missing: Vec<MissingOp> = Vec::new();
        for (op, shape) in ops {
            match self.times(op, shape, distance) {
                Ok(times) => {
                    shares.push(scale * times.latency + unquiet * times.unquiet + per_op_micros);
                }
                Err(why) => missing.push(MissingOp { key: op.key(*shape), why: why.to_string() }),
            }
        }
        let mut asked = HashSet::new();
        missing.retain(|op| asked.insert(op.key.clone()));
        if missing.is_empty() { Ok(shares) } else { Err(missing) }
    }

    /// The input for fitting a calibration: a network's features at each of [`calibration::FOOTPRINTS`].
    ///
    /// # Errors
    /// As for [`Predictor::predict_plan`].
    pub(crate) fn features(
        &self,
        plan: &NetworkPlan,
    ) -> Result<[Features; calibration::FOOTPRINTS.len()], Vec<MissingOp>> {
        let at = |mib: f64| self.parts(plan, mib).map(|parts| parts.features());
        let all =
            calibration::FOOTPRINTS.into_iter().map(at).collect::<Result<Vec<Features>, _>>()?;
        Ok(all.try_into().expect("as many features as footprints"))
    }

    /// The reuse distance of a network with this many bytes of weights: the memory that is touched when it runs
    /// repeatedly.
    fn footprint_bytes(weight_bytes: f64, footprint_mib: f64) -> f64 {
        weight_bytes + footprint_mib * MIB
    }

    fn parts(&self, plan: &NetworkPlan, footprint_mib: f64) -> Result<Parts, Vec<MissingOp>> {
        let element_bytes = self.index.table().run_config.dtype.bytes();
        let weights = plan.cost.weight_bytes(element_bytes) as f64;
        let reuse_distance_bytes = Predictor::footprint_bytes(weights, footprint_mib);
        let mut missing: Vec<MissingOp> = Vec::new();
        let mut asked: HashSet<&OpKey> = HashSet::new();
        let mut ops: Vec<Contribution> = Vec::with_capacity(plan.steps.len());
        let mut sums = Sums::default();
        for step in &plan.steps {
            match self.times(&step.op, &step.key.shape, reuse_distance_bytes) {
                Ok(times) => {
                    let same_row = ops.last().is_some_and(|last| last.key == step.key);
                    sums.add(&times.cost(), times.micros_per_mib, same_row);
                    ops.push(contribution(step, &times));
                }
                Err(why) if asked.insert(&step.key) => {
                    missing.push(MissingOp { key: step.key.clone(), why: why.to_string() });
                }
                Err(_) => {}
            }
        }
        if !missing.is_empty() {
            return Err(missing);
        }
        let merges = plan.steps.iter().filter(|step| step.merge.is_some()).count();
        Ok(Parts { sums, ops, merges, cost: plan.cost, reuse_distance_bytes })
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
                    let micros_per_mib = row.micros_per_byte(distance) * MIB;
                    let unquiet = row.unquiet_micros(distance).unwrap_or(0.0);
                    let origin = Origin::Measured;
                    Ok(Times { low, latency, high, micros_per_mib, unquiet, clocks, origin })
                }
                // Neighbours' numbers would hide that this device cannot run it.
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
        let factor = (FROM_90_TO_95 * estimate.error).exp();
        let host = self.index.host_micros(op, distance);
        // Estimates are learned from latencies. If the host is slower than the device, a latency is only an upper bound
        // of the device time.
        let at_least = host.unwrap_or(0.0);
        Ok(Times {
            low: (estimate.micros / factor).max(at_least),
            latency: estimate.micros.max(at_least),
            high: (estimate.micros * factor).max(at_least),
            micros_per_mib: estimate.micros_per_byte * MIB,
            unquiet: estimate.micros * self.index.unquiet_share(),
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

fn contribution(step: &PlanStep, times: &Times) -> Contribution {
    Contribution {
        place: step.place.clone(),
        key: step.key.clone(),
        latency_micros: times.latency,
        low_micros: times.low,
        high_micros: times.high,
        host_micros: times.clocks.map(|clocks| clocks.host_micros),
        device_micros: times.clocks.map(|clocks| clocks.device_micros),
        origin: times.origin,
    }
}

impl Parts {
    fn features(&self) -> Features {
        self.sums.features(self.merges as f64)
    }

    fn prediction(self, calibration: &Calibration) -> Prediction {
        let features = self.features();
        let estimate = calibration::apply(calibration, &features);
        let Micros { low, latency, high } = estimate.interval(calibration);
        let measured = self.ops.iter().filter(|op| op.origin == Origin::Measured);
        // The sum of no numbers would be -0.
        let measured = measured.fold(0.0, |sum, op| sum + op.latency_micros);
        Prediction {
            latency_micros: latency,
            low_micros: low,
            high_micros: high,
            uncertainty: estimate.error,
            ops_micros: features.ops_micros,
            merges: u32::try_from(self.merges).unwrap_or(u32::MAX),
            calibration_networks: calibration.networks,
            measured_share: measured / self.sums.latency_micros(),
            reuse_distance_bytes: self.reuse_distance_bytes,
            flops: self.cost.flops,
            params: self.cost.params,
            ops: self.ops,
        }
    }
}

#[cfg(test)]
mod tests;
