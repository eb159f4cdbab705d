//! How well a table predicts whole networks that were measured on the same hardware. Pure.
//!
//! The relative error of a network is `predicted / measured - 1`: positive where the table promises too
//! much time.

mod kendall;

use std::collections::BTreeMap;

use ops_catalog::OpKey;
use serde::{Deserialize, Serialize};

use crate::network::family;
use crate::{
    Calibration, MeasuredNetwork, MissingOp, NetworkDigest, Origin, Prediction, Predictor, Status,
};

/// The most networks that are listed. All of them count in the summaries.
const MOST_LISTED: usize = 1000;

/// How many networks calibrations are tried with.
const FITTED_ON: [usize; 2] = [5, 20];

/// Fewest networks to judge a calibration by.
const FEWEST_JUDGED: usize = 5;

/// A network of whose prediction less than this share rests on measured rows says more about the
/// interpolation than about what is between ops.
const LEAST_MEASURED: f64 = 0.5;

/// The most ops that the error of one network is traced to.
const MOST_CARRIERS: usize = 3;

/// The most missing rows that are named where there is no prediction.
const MOST_MISSING: usize = 3;

/// How well a table predicts.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accuracy {
    /// Over all networks, predicted from the rows alone.
    pub overall: Summary,
    /// Predicted with a calibration that was fitted on few of the networks and is judged by the others.
    pub calibrated: Vec<Calibrated>,
    /// Over the networks of each family.
    pub families: BTreeMap<String, Summary>,
    /// The networks, the worst predicted first and those without a prediction at the end; at most 1000.
    pub networks: Vec<NetworkAccuracy>,
}

/// What a calibration on few networks is worth. The networks, in the order of their digests, are cut
/// into groups of `fitted_on`; each group in turn is fitted on and all others are judged, and the
/// figures are means over the groups.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibrated {
    /// Networks that each calibration was fitted on.
    pub fitted_on: u32,
    /// Errors of the networks that it was not fitted on.
    pub summary: Summary,
}

/// Errors of some networks. Null where no network has a prediction.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// Networks that were measured.
    pub networks: u32,
    /// Networks among them that the table predicts.
    pub predicted: u32,
    /// Mean of the absolute relative errors.
    pub mape: Option<f64>,
    /// Mean of the signed relative errors.
    pub bias: Option<f64>,
    /// Share of the predicted networks with an error of at most 5%.
    pub within_5: Option<f64>,
    /// Share with an error of at most 10%.
    pub within_10: Option<f64>,
    /// Kendall's tau-b between predicted and measured latencies; null for fewer than two networks.
    pub kendall_tau: Option<f64>,
    /// Share whose measured latency lies inside the predicted interval.
    pub covered: Option<f64>,
}

/// One network, predicted and measured. Times are microseconds.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkAccuracy {
    /// Its name, for people.
    pub name: String,
    /// Its digest.
    pub digest: NetworkDigest,
    /// Its family; null when its definition belongs to another version of the catalog.
    pub family: Option<String>,
    /// How far the measured number can be trusted.
    pub status: Status,
    /// What one inference takes.
    pub measured_micros: f64,
    /// Lower end of its 95% interval.
    pub measured_low_micros: f64,
    /// Upper end of it.
    pub measured_high_micros: f64,
    /// The prediction beside it.
    pub prediction: Option<Comparison>,
    /// Why there is no prediction.
    pub unpredicted: Option<String>,
}

/// A prediction held against the truth. Times are microseconds.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    /// The prediction.
    pub predicted_micros: f64,
    /// Lower end of its interval.
    pub low_micros: f64,
    /// Upper end of it.
    pub high_micros: f64,
    /// `predicted / measured - 1`.
    pub error: f64,
    /// Share of the prediction that rests on measured rows.
    pub measured_share: f64,
    /// The ops whose intervals reach furthest towards the measured latency: those that may carry the error.
    pub carriers: Vec<Carrier>,
    /// How much the measured latency lies above (positive) or below (negative) the predicted interval: the
    /// part of the error that no op's interval explains, and that therefore can't be traced to single ops.
    pub unattributed_micros: f64,
}

/// An op of a network, all its places together.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Carrier {
    /// Its row.
    pub key: OpKey,
    /// How often the network has it.
    pub count: u32,
    /// Its share of the predicted latency, 0 to 1.
    pub share: f64,
    /// How far its interval reaches towards the measured latency, in microseconds, over all places.
    pub reach_micros: f64,
    /// Where its number comes from.
    pub origin: Origin,
}

impl Accuracy {
    /// Holds a table's predictions against networks that were measured under its hardware id and run
    /// config, and fits a calibration on all of them: what the table's next predictions are made with. No
    /// calibration is fitted on a network of which less than half rests on measured rows.
    pub fn of(
        predictor: &Predictor,
        networks: &[MeasuredNetwork],
    ) -> (Accuracy, Option<Calibration>) {
        let plain = Calibration::default();
        let mut examples: Vec<Example> = Vec::new();
        let mut all: Vec<NetworkAccuracy> = Vec::new();
        for truth in networks {
            let (_, measured, _) = truth.latency.latency_micros();
            let (mut network, prediction) = compared(predictor, truth);
            if let Some(prediction) = prediction.map(|p| p.calibrated(&plain)) {
                network.prediction = Some(comparison(&prediction, measured));
                let digest = truth.network.digest.clone();
                examples.push(Example { digest, prediction, measured });
            }
            all.push(network);
        }
        let badness = |n: &NetworkAccuracy| n.prediction.as_ref().map_or(-1.0, |p| p.error.abs());
        all.sort_by(|a, b| badness(b).total_cmp(&badness(a)).then_with(|| a.digest.cmp(&b.digest)));
        let mut by_family: BTreeMap<String, Vec<&NetworkAccuracy>> = BTreeMap::new();
        for network in &all {
            if let Some(family) = &network.family {
                by_family.entry(family.clone()).or_default().push(network);
            }
        }
        let families =
            by_family.iter().map(|(family, of)| (family.clone(), Summary::of(of))).collect();
        let overall = Summary::of(&all.iter().collect::<Vec<_>>());
        all.truncate(MOST_LISTED);
        examples.retain(|example| example.prediction.measured_share >= LEAST_MEASURED);
        examples.sort_by(|a, b| a.digest.cmp(&b.digest));
        let calibrated = FITTED_ON.iter().filter_map(|&n| Calibrated::of(&examples, n)).collect();
        let calibration = (!examples.is_empty()).then(|| fit(&examples));
        (Accuracy { overall, calibrated, families, networks: all }, calibration)
    }
}

/// A network that a calibration may be fitted on.
struct Example {
    digest: NetworkDigest,
    prediction: Prediction,
    measured: f64,
}

fn fit(examples: &[Example]) -> Calibration {
    let pairs: Vec<_> = examples.iter().map(|e| (e.prediction.features(), e.measured)).collect();
    Calibration::fit(&pairs)
}

impl Calibrated {
    /// None when the networks are too few to be fitted on and judged.
    fn of(examples: &[Example], fitted_on: usize) -> Option<Calibrated> {
        if examples.len() < fitted_on + FEWEST_JUDGED {
            return None;
        }
        let groups = examples.chunks_exact(fitted_on).enumerate();
        let summaries: Vec<Summary> = groups
            .map(|(index, group)| {
                let calibration = fit(group);
                let from = index * fitted_on;
                let judged = examples[..from].iter().chain(&examples[from + fitted_on..]);
                let pairs: Vec<(f64, Comparison)> = judged
                    .map(|e| {
                        let prediction = e.prediction.clone().calibrated(&calibration);
                        (e.measured, comparison(&prediction, e.measured))
                    })
                    .collect();
                let pairs: Vec<_> = pairs.iter().map(|(measured, p)| (*measured, p)).collect();
                Summary::of_pairs(pairs.len(), &pairs)
            })
            .collect();
        Some(Calibrated {
            fitted_on: u32::try_from(fitted_on).unwrap_or(u32::MAX),
            summary: Summary::mean(&summaries)?,
        })
    }
}

impl Summary {
    fn of(networks: &[&NetworkAccuracy]) -> Summary {
        let pairs: Vec<(f64, &Comparison)> = networks
            .iter()
            .filter_map(|n| Some((n.measured_micros, n.prediction.as_ref()?)))
            .collect();
        Summary::of_pairs(networks.len(), &pairs)
    }

    /// The mean of each figure; None of no summaries.
    fn mean(summaries: &[Summary]) -> Option<Summary> {
        let first = summaries.first()?;
        let mean = |figure: fn(&Summary) -> Option<f64>| {
            let values: Vec<f64> = summaries.iter().filter_map(figure).collect();
            (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
        };
        Some(Summary {
            networks: first.networks,
            predicted: first.predicted,
            mape: mean(|s| s.mape),
            bias: mean(|s| s.bias),
            within_5: mean(|s| s.within_5),
            within_10: mean(|s| s.within_10),
            kendall_tau: mean(|s| s.kendall_tau),
            covered: mean(|s| s.covered),
        })
    }

    fn of_pairs(networks: usize, pairs: &[(f64, &Comparison)]) -> Summary {
        let mean = |value: &dyn Fn(&(f64, &Comparison)) -> f64| {
            (!pairs.is_empty()).then(|| pairs.iter().map(value).sum::<f64>() / pairs.len() as f64)
        };
        let share = |holds: &dyn Fn(&(f64, &Comparison)) -> bool| {
            mean(&|pair| if holds(pair) { 1.0 } else { 0.0 })
        };
        let ranks: Vec<(f64, f64)> =
            pairs.iter().map(|(measured, p)| (*measured, p.predicted_micros)).collect();
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Summary {
            networks: count(networks),
            predicted: count(pairs.len()),
            mape: mean(&|(_, p)| p.error.abs()),
            bias: mean(&|(_, p)| p.error),
            within_5: share(&|(_, p)| p.error.abs() <= 0.05),
            within_10: share(&|(_, p)| p.error.abs() <= 0.10),
            kendall_tau: kendall::tau_b(&ranks),
            covered: share(&|(measured, p)| (p.low_micros..=p.high_micros).contains(measured)),
        }
    }
}

/// A network, its prediction still to be filled in.
fn compared(
    predictor: &Predictor,
    truth: &MeasuredNetwork,
) -> (NetworkAccuracy, Option<Prediction>) {
    let (low, measured, high) = truth.latency.latency_micros();
    let (family, outcome) = match truth.network.plan() {
        Ok(plan) => {
            let prediction = predictor.predict_plan(&plan);
            let written = truth.network.spec.family.clone();
            let family = written.unwrap_or_else(|| family(&plan).to_owned());
            (Some(family), prediction.map_err(|missing| without(&missing)))
        }
        Err(invalid) => (None, Err(invalid.to_string())),
    };
    let (prediction, unpredicted) = match outcome {
        Ok(prediction) => (Some(prediction), None),
        Err(why) => (None, Some(why)),
    };
    let network = NetworkAccuracy {
        name: truth.network.name().to_owned(),
        digest: truth.network.digest.clone(),
        family,
        status: truth.status,
        measured_micros: measured,
        measured_low_micros: low,
        measured_high_micros: high,
        prediction: None,
        unpredicted,
    };
    (network, prediction)
}

/// Why there is no prediction, with the first missing rows.
fn without(missing: &[MissingOp]) -> String {
    let named = missing.iter().take(MOST_MISSING).map(|op| format!("{} ({})", op.key, op.why));
    let mut text = match missing.len() {
        1 => "a row is missing: ".to_owned(),
        n => format!("{n} rows are missing: "),
    };
    text += &named.collect::<Vec<_>>().join(", ");
    if missing.len() > MOST_MISSING {
        text += ", ...";
    }
    text
}

fn comparison(prediction: &Prediction, measured: f64) -> Comparison {
    let Prediction { latency_micros, low_micros, high_micros, measured_share, .. } = *prediction;
    let unattributed_micros = if measured > high_micros {
        measured - high_micros
    } else {
        (measured - low_micros).min(0.0)
    };
    Comparison {
        predicted_micros: latency_micros,
        low_micros,
        high_micros,
        error: latency_micros / measured - 1.0,
        measured_share,
        carriers: carriers(prediction, measured > latency_micros),
        unattributed_micros,
    }
}

/// The ops whose intervals reach furthest in the direction of the error.
fn carriers(prediction: &Prediction, upwards: bool) -> Vec<Carrier> {
    let mut by_key: BTreeMap<&OpKey, Carrier> = BTreeMap::new();
    for op in &prediction.ops {
        let reach = if upwards {
            op.high_micros - op.latency_micros
        } else {
            op.latency_micros - op.low_micros
        };
        let carrier = by_key.entry(&op.key).or_insert_with(|| Carrier {
            key: op.key.clone(),
            count: 0,
            share: 0.0,
            reach_micros: 0.0,
            origin: op.origin,
        });
        carrier.count += 1;
        carrier.share += op.latency_micros / prediction.latency_micros;
        carrier.reach_micros += reach;
    }
    let mut all: Vec<Carrier> = by_key.into_values().collect();
    // Where no interval reaches anywhere, the largest share is the best guess.
    let rank = |c: &Carrier| (c.reach_micros, c.share);
    all.sort_by(|a, b| {
        let (a, b) = (rank(a), rank(b));
        b.0.total_cmp(&a.0).then(b.1.total_cmp(&a.1))
    });
    all.truncate(MOST_CARRIERS);
    all
}

#[cfg(test)]
mod tests;
