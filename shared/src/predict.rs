//! Predictions of whole networks from a table.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

use ops_catalog::{Cost, Network, NetworkPlan, OpKey, PlanStep};
use serde::{Deserialize, Serialize};

use crate::interpolate::Interpolator;
use crate::table::TableIndex;

/// How far apart two uses of one weight are in a network, per byte of its weights: between two
/// inferences all weights are read, and activations come on top. Measured on 24 random
/// MobileNet-like networks, where 1.25 to 1.5 served about equally well.
const FOOTPRINT_PER_WEIGHT_BYTE: f64 = 1.375;

/// What happens to an op whose row is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    /// The prediction fails and lists it.
    #[default]
    Error,
    /// It is estimated from rows of the same op around it; outside the measured range it fails.
    Interpolate,
}

impl FromStr for Missing {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "error" => Ok(Missing::Error),
            "interpolate" => Ok(Missing::Interpolate),
            _ => Err(format!("`{text}` is not known: write `error` or `interpolate`")),
        }
    }
}

/// Where an op's share of a prediction comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A row of the table.
    Measured,
    /// Rows around it.
    Interpolated,
}

/// One op's share of a prediction. Times are microseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Contribution {
    /// Its place in the network as its author wrote it.
    pub place: String,
    /// Its row.
    pub key: OpKey,
    /// Its latency.
    pub latency_micros: f64,
    /// Lower end of its interval.
    pub low_micros: f64,
    /// Upper end.
    pub high_micros: f64,
    /// Where the number comes from.
    pub origin: Origin,
}

/// The latency of a network on one class of hardware. Times are microseconds.
///
/// The interval adds up the intervals of the ops (95% for a measured row, 90% for an interpolated one)
/// as if they all erred in one direction, which they do when a machine is slow for an hour. It does not
/// hold what a sum of ops can't know, such as the scheduling between ops: that error is found by
/// comparing with whole networks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// Sum over the ops.
    pub latency_micros: f64,
    /// Lower end of the interval.
    pub low_micros: f64,
    /// Upper end of the interval.
    pub high_micros: f64,
    /// Share of the latency, 0 to 1, that rests on measured rows.
    pub measured_share: f64,
    /// The reuse distance, in bytes, at which the rows' curves were read: the network's footprint.
    pub reuse_distance_bytes: f64,
    /// Multiply-accumulates of the network.
    pub flops: u64,
    /// Its parameters.
    pub params: u64,
    /// Each op's share, in running order.
    pub ops: Vec<Contribution>,
}

/// An op without which there is no prediction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingOp {
    /// Its row.
    pub key: OpKey,
    /// Why there is no number for it.
    pub why: String,
}

/// Why there is no prediction.
#[derive(Debug, Clone, PartialEq)]
pub enum PredictError {
    /// The network is not valid.
    Network(ops_catalog::Invalid),
    /// Rows are missing: all of them, each once.
    Missing(Vec<MissingOp>),
}

impl fmt::Display for PredictError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PredictError::Network(invalid) => invalid.fmt(f),
            PredictError::Missing(ops) => {
                f.write_str(match ops.len() {
                    1 => "a row is missing from the table:",
                    _ => "rows are missing from the table:",
                })?;
                ops.iter().try_for_each(|op| write!(f, "\n  {}  ({})", op.key, op.why))
            }
        }
    }
}

impl std::error::Error for PredictError {}

impl From<ops_catalog::Invalid> for PredictError {
    fn from(invalid: ops_catalog::Invalid) -> Self {
        PredictError::Network(invalid)
    }
}

/// Predicts networks from one table under one rule for missing rows.
pub struct Predictor<'a> {
    index: &'a TableIndex,
    interpolator: Option<Interpolator<'a>>,
}

impl<'a> Predictor<'a> {
    /// A predictor.
    pub fn new(index: &'a TableIndex, missing: Missing) -> Predictor<'a> {
        let interpolator = match missing {
            Missing::Error => None,
            Missing::Interpolate => Some(Interpolator::new(index)),
        };
        Predictor { index, interpolator }
    }

    /// The table that it reads.
    pub fn index(&self) -> &'a TableIndex {
        self.index
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
        plan.cost.weight_bytes(element_bytes) as f64 * FOOTPRINT_PER_WEIGHT_BYTE
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
                    missing.push(MissingOp { key: step.key.clone(), why });
                }
                Err(_) => {}
            }
        }
        if missing.is_empty() {
            Ok(Prediction::new(ops, plan.cost, reuse_distance_bytes))
        } else {
            Err(missing)
        }
    }

    fn contribution(&self, step: &PlanStep, distance: f64) -> Result<Contribution, String> {
        let found = |(low_micros, latency_micros, high_micros), origin| Contribution {
            place: step.place.clone(),
            key: step.key.clone(),
            latency_micros,
            low_micros,
            high_micros,
            origin,
        };
        if let Some(row) = self.index.row(&step.op, &step.key.shape) {
            return match row.read_curve(distance) {
                Some(times) => Ok(found(times, Origin::Measured)),
                // Its neighbours' numbers would hide that this device cannot run it.
                None => Err(format!(
                    "it could not be measured: {}",
                    row.reason.as_deref().unwrap_or("no reason was given")
                )),
            };
        }
        let Some(interpolator) = &self.interpolator else {
            return Err(self.why_missing(step));
        };
        let estimate = interpolator.estimate(&step.op, &step.key.shape, distance)?;
        let factor = estimate.error.exp();
        let times = (estimate.micros / factor, estimate.micros, estimate.micros * factor);
        Ok(found(times, Origin::Interpolated))
    }

    fn why_missing(&self, step: &PlanStep) -> String {
        match self.index.foreign_row(&step.key) {
            Some(row) => format!(
                "the table has it for another definition of {}, digest {}; this catalog's is {}",
                step.key.op,
                row.op_digest,
                step.op.digest()
            ),
            None => "not measured".to_owned(),
        }
    }
}

impl Prediction {
    fn new(ops: Vec<Contribution>, cost: Cost, reuse_distance_bytes: f64) -> Prediction {
        let sum = |part: fn(&Contribution) -> f64| ops.iter().map(part).sum::<f64>();
        let latency_micros = sum(|op| op.latency_micros);
        let measured = sum(|op| match op.origin {
            Origin::Measured => op.latency_micros,
            Origin::Interpolated => 0.0,
        });
        Prediction {
            latency_micros,
            low_micros: sum(|op| op.low_micros),
            high_micros: sum(|op| op.high_micros),
            measured_share: measured / latency_micros,
            reuse_distance_bytes,
            flops: cost.flops,
            params: cost.params,
            ops,
        }
    }
}

#[cfg(test)]
mod tests;
