//! How well a table predicts whole networks that were measured on the same hardware. Pure.
//!
//! The relative error of a network is `predicted / measured - 1`: positive where the table promises too
//! much time.

mod kendall;

use std::collections::BTreeMap;

use latlas_shared::accuracy::{Calibrated, Carrier, Comparison, NetworkAccuracy, Summary};
use latlas_shared::{Accuracy, Calibration, MeasuredNetwork, MissingOp, NetworkDigest, Prediction};
use ops_catalog::{NetworkPlan, OpKey, Primitive};

use crate::Predictor;
use crate::predictor::{calibrated, calibration, features};

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

/// Holds a table's predictions against networks that were measured under its hardware id and run
/// config, and fits a calibration on all of them: what the table's next predictions are made with. No
/// calibration is fitted on a network of which less than half rests on measured rows.
pub fn judge(
    predictor: &Predictor,
    networks: &[MeasuredNetwork],
) -> (Accuracy, Option<Calibration>) {
    let plain = Calibration::default();
    let mut examples: Vec<Example> = Vec::new();
    let mut all: Vec<NetworkAccuracy> = Vec::new();
    for truth in networks {
        let (_, measured, _) = truth.latency.latency_micros();
        let (mut network, prediction) = compared(predictor, truth);
        if let Some(prediction) = prediction.map(|p| calibrated(p, &plain)) {
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
    let families = by_family.iter().map(|(family, of)| (family.clone(), summary(of))).collect();
    let overall = summary(&all.iter().collect::<Vec<_>>());
    all.truncate(MOST_LISTED);
    examples.retain(|example| example.prediction.measured_share >= LEAST_MEASURED);
    examples.sort_by(|a, b| a.digest.cmp(&b.digest));
    let calibrated = FITTED_ON.iter().filter_map(|&n| cross_fitted(&examples, n)).collect();
    let calibration = (!examples.is_empty()).then(|| fit(&examples));
    (Accuracy { overall, calibrated, families, networks: all }, calibration)
}

/// A network that a calibration may be fitted on.
struct Example {
    digest: NetworkDigest,
    prediction: Prediction,
    measured: f64,
}

fn fit(examples: &[Example]) -> Calibration {
    let pairs: Vec<_> = examples.iter().map(|e| (features(&e.prediction), e.measured)).collect();
    calibration::fit(&pairs)
}

/// None when the networks are too few to be fitted on and judged.
fn cross_fitted(examples: &[Example], fitted_on: usize) -> Option<Calibrated> {
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
                    let prediction = calibrated(e.prediction.clone(), &calibration);
                    (e.measured, comparison(&prediction, e.measured))
                })
                .collect();
            let pairs: Vec<_> = pairs.iter().map(|(measured, p)| (*measured, p)).collect();
            summary_of(pairs.len(), &pairs)
        })
        .collect();
    Some(Calibrated {
        fitted_on: u32::try_from(fitted_on).unwrap_or(u32::MAX),
        summary: mean(&summaries)?,
    })
}

fn summary(networks: &[&NetworkAccuracy]) -> Summary {
    let pairs: Vec<(f64, &Comparison)> =
        networks.iter().filter_map(|n| Some((n.measured_micros, n.prediction.as_ref()?))).collect();
    summary_of(networks.len(), &pairs)
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

fn summary_of(networks: usize, pairs: &[(f64, &Comparison)]) -> Summary {
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

/// The kind of a network, by which accuracy is told apart: `transformer` if it has attention, whatever
/// else it has; `mobilenet` if a convolution is depthwise or grouped; `convnet` otherwise.
fn family(plan: &NetworkPlan) -> &'static str {
    let has = |kind: fn(&Primitive<u32>) -> bool| {
        plan.steps.iter().flat_map(|step| &step.plan.steps).any(|step| kind(&step.primitive))
    };
    if has(|primitive| matches!(primitive, Primitive::SelfAttention { .. })) {
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
