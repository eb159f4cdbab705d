//! The accuracy of a table: how well it predicts whole networks that were measured on the same hardware. Pure.
//!
//! The relative error of a network is `predicted / measured - 1`: positive if the prediction is too high.

mod kendall;

use std::collections::BTreeMap;

use latlas_shared::accuracy::{Calibrated, Carrier, Comparison, NetworkAccuracy, Summary};
use latlas_shared::{Accuracy, Calibration, MeasuredNetwork, MissingOp, NetworkDigest, Prediction};
use ops_catalog::{NetworkPlan, OpKey, Primitive};

use crate::Predictor;
use crate::predictor::calibration::{self, Prior};
use crate::predictor::{Features, Micros};

/// The most networks that are listed. All of them are included in the summaries.
const MOST_LISTED: usize = 1000;

/// Numbers of networks on which calibrations are fitted.
const FITTED_ON: [usize; 2] = [5, 20];

/// Fewest networks for evaluating a calibration.
const FEWEST_JUDGED: usize = 5;

/// Networks are excluded if a smaller share of their prediction comes from measured rows: they say more about the
/// interpolation than about the costs between ops.
const LEAST_MEASURED: f64 = 0.5;

/// The most ops to which the error of one network is attributed.
const MOST_CARRIERS: usize = 3;

/// The most missing rows that are named if there is no prediction.
const MOST_MISSING: usize = 3;

/// Compares a table's predictions with networks that were measured under its hardware id and run config, and fits a
/// calibration on all of them, which the table's next predictions use. Networks with less than half of their prediction
/// from measured rows are excluded from the fit.
pub fn judge(predictor: &Predictor, networks: &[MeasuredNetwork]) -> (Accuracy, Calibration) {
    let prior = predictor.index().prior();
    let plain = calibration::uncalibrated(&prior);
    let mut examples: Vec<(&NetworkDigest, calibration::Example)> = Vec::new();
    let mut all: Vec<NetworkAccuracy> = Vec::new();
    for truth in networks {
        let (_, measured_micros, _) = truth.latency.latency_micros();
        let (mut network, predicted) = compared(predictor, truth, &plain);
        if let Some((prediction, features)) = predicted {
            network.prediction = Some(comparison(&prediction, measured_micros));
            if prediction.measured_share >= LEAST_MEASURED {
                let example = calibration::Example { features, measured_micros };
                examples.push((&truth.network.digest, example));
            }
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
    let families = by_family.iter().map(|(family, of)| (family.clone(), summary(of))).collect();
    let overall = summary(&all.iter().collect::<Vec<_>>());
    all.truncate(MOST_LISTED);
    examples.sort_by_key(|(digest, _)| *digest);
    let examples: Vec<calibration::Example> = examples.into_iter().map(|(_, one)| one).collect();
    let cross_fitted = |&n: &usize| cross_fitted(&examples, n, &prior);
    let calibrated = FITTED_ON.iter().filter_map(cross_fitted).collect();
    let calibration = calibration::fit(&examples, &prior);
    (Accuracy { overall, calibrated, families, networks: all }, calibration)
}

/// None if there are too few networks for fitting and evaluation.
fn cross_fitted(
    examples: &[calibration::Example],
    fitted_on: usize,
    prior: &Prior,
) -> Option<Calibrated> {
    if examples.len() < fitted_on + FEWEST_JUDGED {
        return None;
    }
    let groups = examples.chunks_exact(fitted_on).enumerate();
    let summaries: Vec<Summary> = groups
        .map(|(index, group)| {
            let calibration = calibration::fit(group, prior);
            let from = index * fitted_on;
            let judged = examples[..from].iter().chain(&examples[from + fitted_on..]);
            let pairs: Vec<(f64, Micros)> =
                judged.map(|one| (one.measured_micros, one.predicted(&calibration))).collect();
            summary_of(pairs.len(), &pairs)
        })
        .collect();
    Some(Calibrated {
        fitted_on: u32::try_from(fitted_on).unwrap_or(u32::MAX),
        summary: mean(&summaries)?,
    })
}

fn summary(networks: &[&NetworkAccuracy]) -> Summary {
    let micros = |p: &Comparison| Micros {
        low: p.low_micros,
        latency: p.predicted_micros,
        high: p.high_micros,
    };
    let pair = |n: &&NetworkAccuracy| Some((n.measured_micros, micros(n.prediction.as_ref()?)));
    let pairs: Vec<(f64, Micros)> = networks.iter().filter_map(pair).collect();
    summary_of(networks.len(), &pairs)
}

/// The mean of each figure; None if there are no summaries.
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
        half_width: mean(|s| s.half_width),
        interval_score: mean(|s| s.interval_score),
    })
}

/// Pairs of a measured latency, in microseconds, and its prediction.
fn summary_of(networks: usize, pairs: &[(f64, Micros)]) -> Summary {
    let mean = |value: &dyn Fn(f64, &Micros) -> f64| {
        let sum: f64 = pairs.iter().map(|(measured, micros)| value(*measured, micros)).sum();
        (!pairs.is_empty()).then(|| sum / pairs.len() as f64)
    };
    let error = |measured: f64, micros: &Micros| micros.latency / measured - 1.0;
    let share = |holds: &dyn Fn(f64, &Micros) -> bool| {
        mean(&|measured, micros| if holds(measured, micros) { 1.0 } else { 0.0 })
    };
    let ranks: Vec<(f64, f64)> =
        pairs.iter().map(|(measured, micros)| (*measured, micros.latency)).collect();
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Summary {
        networks: count(networks),
        predicted: count(pairs.len()),
        mape: mean(&|measured, micros| error(measured, micros).abs()),
        bias: mean(&error),
        within_5: share(&|measured, micros| error(measured, micros).abs() <= 0.05),
        within_10: share(&|measured, micros| error(measured, micros).abs() <= 0.10),
        kendall_tau: kendall::tau_b(&ranks),
        covered: share(&|measured, micros| (micros.low..=micros.high).contains(&measured)),
        half_width: mean(&|_, micros| (micros.high - micros.low) / 2.0 / micros.latency),
        interval_score: mean(&interval_score),
    }
}

/// The score of a 95% interval, relative to the measured latency: its width, plus 40 times the distance of the measured
/// value from the interval (Gneiting and Raftery 2007, JASA 102:359, section 6.2). Smaller is better, and an honest
/// interval scores best.
fn interval_score(measured: f64, micros: &Micros) -> f64 {
    let outside = (micros.low - measured).max(measured - micros.high).max(0.0);
    (micros.high - micros.low + 2.0 / 0.05 * outside) / measured
}

/// A prediction of a network, and the features for fitting a calibration.
type Predicted = (Prediction, [Features; calibration::FOOTPRINTS.len()]);

/// A network whose prediction is still to be filled in.
fn compared(
    predictor: &Predictor,
    truth: &MeasuredNetwork,
    plain: &Calibration,
) -> (NetworkAccuracy, Option<Predicted>) {
    let (low, measured, high) = truth.latency.latency_micros();
    let (family, outcome) = match truth.network.plan() {
        Ok(plan) => {
            let predicted = predictor
                .predict_with(&plan, plain)
                .and_then(|prediction| Ok((prediction, predictor.features(&plan)?)));
            let written = truth.network.spec.family.clone();
            let family = written.unwrap_or_else(|| family(&plan).to_owned());
            (Some(family), predicted.map_err(|missing| without(&missing)))
        }
        Err(invalid) => (None, Err(invalid.to_string())),
    };
    let (predicted, unpredicted) = match outcome {
        Ok(predicted) => (Some(predicted), None),
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
    (network, predicted)
}

/// The kind of a network, by which accuracy is grouped: `transformer` if it has attention, whatever else it has;
/// `mobilenet` if a convolution is depthwise or grouped; `convnet` otherwise.
fn family(plan: &NetworkPlan) -> &'static str {
    let has = |kind: fn(&Primitive<u32>) -> bool| {
        plan.steps.iter().flat_map(|step| &step.plan.steps).any(|step| kind(&step.primitive))
    };
    let attends = |primitive: &Primitive<u32>| {
        matches!(
            primitive,
            Primitive::SelfAttention { .. }
                | Primitive::Attention { .. }
                | Primitive::ChannelAttention { .. }
                | Primitive::WindowAttention { .. }
        )
    };
    if has(attends) {
        "transformer"
    } else if has(|primitive| matches!(primitive, Primitive::Conv2d { groups, .. } if *groups > 1))
    {
        "mobilenet"
    } else {
        "convnet"
    }
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

/// The ops whose intervals extend furthest in the direction of the error.
fn carriers(prediction: &Prediction, upwards: bool) -> Vec<Carrier> {
    let mut by_key: BTreeMap<&OpKey, Carrier> = BTreeMap::new();
    let total: f64 = prediction.ops.iter().map(|op| op.latency_micros).sum();
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
        carrier.share += op.latency_micros / total;
        carrier.reach_micros += reach;
    }
    let mut all: Vec<Carrier> = by_key.into_values().collect();
    // If no interval has any width, the largest share is the best guess.
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
