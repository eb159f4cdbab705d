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
mod tests {
    use super::*;
    use crate::table::testing::{failed, key, row, table};
    use ops_catalog::{Catalog, NetworkSpec};
    use proptest::prelude::*;
    use serde_json::json;

    /// Op, output channels and stride of each layer.
    type Layers = Vec<(&'static str, u32, u32)>;

    fn network(c: u32, size: u32, layers: &Layers) -> Network {
        let layers: Vec<_> = layers
            .iter()
            .map(|(op, c_out, stride)| json!({"op": op, "c_out": c_out, "stride": stride}))
            .collect();
        let input = json!({"n": 1, "c": c, "h": size, "w": size});
        let spec = json!({"input": input, "layers": layers}).to_string();
        Network::new(&NetworkSpec::from_json(&spec).unwrap(), Catalog::builtin()).unwrap()
    }

    fn plan(network: &Network) -> NetworkPlan {
        network.plan(Catalog::builtin()).unwrap()
    }

    /// A table of all rows of a network, each with a latency of its own.
    fn table_of(plan: &NetworkPlan, factor: f64) -> TableIndex {
        let mut keys: Vec<OpKey> = plan.steps.iter().map(|step| step.key.clone()).collect();
        keys.sort();
        keys.dedup();
        let rows = keys.iter().enumerate().map(|(i, key)| row(key, factor * (10.0 + i as f64)));
        TableIndex::new(table(rows.collect())).unwrap()
    }

    fn layers() -> impl Strategy<Value = Layers> {
        let layer = (
            prop::sample::select(vec!["Conv3x3", "MBConv6_3x3"]),
            prop::sample::select(vec![8, 16, 24]),
            1u32..=2,
        );
        prop::collection::vec(layer, 1..6)
    }

    proptest! {
        #[test]
        fn a_network_costs_what_its_parts_cost_at_its_footprint(first in layers(), second in layers()) {
            let whole: Layers = first.iter().chain(&second).copied().collect();
            let whole = plan(&network(3, 1024, &whole));
            let first = plan(&network(3, 1024, &first));
            let cut = &whole.steps[first.steps.len()].key.shape;
            let second = plan(&network(cut.channels_in, cut.input_h, &second));
            let index = table_of(&whole, 1.0);
            let predictor = Predictor::new(&index, Missing::Error);
            let distance = predictor.footprint(&whole);
            let [a, b] = [first, second].map(|part| predictor.predict_at(&part, distance).unwrap());
            let whole = predictor.predict_plan(&whole).unwrap();
            for (sum, expected) in [
                (a.latency_micros + b.latency_micros, whole.latency_micros),
                (a.low_micros + b.low_micros, whole.low_micros),
                (a.high_micros + b.high_micros, whole.high_micros),
            ] {
                prop_assert!((sum / expected - 1.0).abs() < 1e-12);
            }
            prop_assert_eq!(a.flops + b.flops, whole.flops);
            prop_assert_eq!(a.params + b.params, whole.params);
        }

        #[test]
        fn predictions_scale_with_the_table(layers in layers(), factor in 0.01f64..100.0) {
            let plan = plan(&network(3, 256, &layers));
            let predict = |factor| {
                let index = table_of(&plan, factor);
                Predictor::new(&index, Missing::Error).predict_plan(&plan).unwrap()
            };
            let (one, scaled) = (predict(1.0), predict(factor));
            for (one, scaled) in [
                (one.latency_micros, scaled.latency_micros),
                (one.low_micros, scaled.low_micros),
                (one.high_micros, scaled.high_micros),
            ] {
                prop_assert!((scaled / one / factor - 1.0).abs() < 1e-9);
            }
            prop_assert!(one.low_micros <= one.latency_micros && one.latency_micros <= one.high_micros);
            prop_assert!((one.measured_share - 1.0).abs() < 1e-12);
        }

        /// Rows that were taken out of the table are listed, each once, and nothing else is.
        #[test]
        fn all_missing_rows_are_listed_once(layers in layers(), out in prop::collection::vec(any::<bool>(), 40)) {
            let plan = plan(&network(3, 256, &layers));
            let mut table = table_of(&plan, 1.0).table().clone();
            let mut kept = out.iter().copied().cycle();
            let mut gone: Vec<OpKey> = Vec::new();
            table.rows.retain(|row| {
                let keep = kept.next() == Some(true);
                if !keep { gone.push(row.key()) }
                keep
            });
            let index = TableIndex::new(table).unwrap();
            let mut listed: Vec<OpKey> = match Predictor::new(&index, Missing::Error).predict_plan(&plan) {
                Ok(_) => Vec::new(),
                Err(missing) => missing.into_iter().map(|op| op.key).collect(),
            };
            listed.sort();
            prop_assert_eq!(listed, gone);
        }
    }

    #[test]
    fn what_failed_on_the_device_is_not_interpolated() {
        let keys: Vec<OpKey> =
            (1..=12).map(|i| key(&format!("Conv3x3:n1-h16-w16-i{0}-o{0}-s1", 8 * i))).collect();
        let micros = |key: &OpKey| 5.0 + f64::from(key.shape.channels_in).powi(2);
        let mut rows: Vec<_> = keys.iter().map(|key| row(key, micros(key))).collect();
        rows[6] = failed(&keys[6], "out of memory");
        let missing_row = rows.remove(3);
        let index = TableIndex::new(table(rows)).unwrap();
        let predictor = Predictor::new(&index, Missing::Interpolate);
        let predict = |i: u32| predictor.predict(&network(8 * i, 16, &vec![("Conv3x3", 8 * i, 1)]));
        let estimated = predict(4).unwrap();
        assert_eq!(estimated.ops[0].origin, Origin::Interpolated);
        assert_eq!(estimated.ops[0].key, missing_row.key());
        assert!(estimated.measured_share < 1e-12);
        insta::assert_snapshot!(predict(7).unwrap_err(), @r"
        a row is missing from the table:
          Conv3x3:n1-h16-w16-i56-o56-s1  (it could not be measured: out of memory)
        ");
    }

    #[test]
    fn a_row_of_another_definition_is_named() {
        let plan = plan(&network(8, 16, &vec![("Conv3x3", 8, 1)]));
        let mut old = table_of(&plan, 1.0).table().clone();
        old.rows[0].op_digest = ops_catalog::OpDigest("00ff".to_owned());
        let index = TableIndex::new(old).unwrap();
        let missing = Predictor::new(&index, Missing::Error).predict_plan(&plan).unwrap_err();
        let expected =
            "the table has it for another definition of Conv3x3, digest 00ff; this catalog's is ";
        assert!(missing[0].why.starts_with(expected), "{}", missing[0].why);
    }
}
