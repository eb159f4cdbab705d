//! From the measurements of one key to the row of a table, and from those of one network to its ground
//! truth. Pure: the same measurements in any order give the same result.
//!
//! Each agent counts once, with its latest number; a refusal counts only for an agent without a number. The status is
//! that of the median agent, so that one good agent does not hide nine bad ones; agents with a worse status are left
//! out. Each point of the curve is the median over the agents that measured it. Its interval is for the class of
//! device, by a random-effects model: it becomes narrower with more agents, and wider with agents that differ. An agent
//! that disagrees with a majority is named in the row, but left out of its values.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use jiff::Timestamp;
use latlas_shared::{
    BetweenAgents, CurvePoint, Latency, MeasuredNetwork, Measurement, NetworkDigest, Row, Status,
    Subject, Sustained,
};
use ops_catalog::{OpDigest, OpKey};
use uuid::Uuid;

use crate::stats;

/// One measurement and its agent.
#[derive(Debug, Clone)]
pub struct Observation {
    /// An id of the agent.
    pub agent: String,
    /// The agent's measurement.
    pub measurement: Measurement,
}

/// Two boxes of one class disagree if one takes more than this factor longer than the other. Identical GPUs of five
/// large clusters differed by 8% on average and by at most 22%, except for broken ones (arXiv 2208.11035); all ops of
/// one box vary by a few percent between runs.
pub const DISAGREEMENT: f64 = 1.3;

/// The row of measurements that all have the same key, definition and run config.
///
/// Measurements of whole networks are skipped; without measurements there is no row.
pub fn merge_row(observations: &[Observation]) -> Option<Row> {
    let of_ops = |o: &&Observation| matches!(o.measurement.subject, Subject::Op { .. });
    let merged = Merged::of(observations.iter().filter(of_ops))?;
    let Subject::Op { key, digest } = &merged.newest.subject else { return None };
    Some(row(key, digest, &merged))
}

/// The ground truth of measurements that all have the same network and run config.
///
/// Measurements of ops are skipped; without a number there is no ground truth.
pub fn merge_network(observations: &[Observation]) -> Option<MeasuredNetwork> {
    let of_networks = |o: &&Observation| matches!(o.measurement.subject, Subject::Network(_));
    let Merged { status, newest, members, between_agents } =
        Merged::of(observations.iter().filter(of_networks))?;
    let Subject::Network(network) = &newest.subject else { return None };
    let latencies: Vec<&Latency> = members.iter().filter_map(|m| m.latency.as_ref()).collect();
    let latency = merged_curve(&latencies).into_iter().find(|p| p.reuse_distance_bytes == 0)?;
    Some(MeasuredNetwork {
        network: (**network).clone(),
        latency,
        sustained: merged_sustained(&members),
        status,
        reason: newest.reason.clone().filter(|_| status != Status::Ok),
        agents: u32::try_from(members.len()).unwrap_or(u32::MAX),
        between_agents,
        measured_at: latest(&members, newest),
    })
}

/// The sustained run of the class: the median ratio of the agents, from the median of their latencies at the beginning.
fn merged_sustained(members: &[&Measurement]) -> Option<Sustained> {
    let runs: Vec<Sustained> = members.iter().filter_map(|m| m.sustained).collect();
    let seconds = runs.first()?.seconds;
    let median =
        |of: fn(&Sustained) -> f64| stats::median(&runs.iter().map(of).collect::<Vec<_>>());
    let burst_micros = median(|run| run.burst_micros);
    let sustained_micros = burst_micros * median(Sustained::over_burst);
    Some(Sustained { seconds, burst_micros, sustained_micros })
}

/// All rows and networks of measurements that all have the same hardware id and run config. Boxes with the same
/// fingerprint count as one agent.
pub fn merge_all(measurements: Vec<Measurement>) -> (Vec<Row>, Vec<MeasuredNetwork>) {
    let mut ops: BTreeMap<(OpKey, OpDigest), Vec<Observation>> = BTreeMap::new();
    let mut networks: BTreeMap<NetworkDigest, Vec<Observation>> = BTreeMap::new();
    for measurement in measurements {
        let group = match &measurement.subject {
            Subject::Op { key, digest } => ops.entry((key.clone(), digest.clone())).or_default(),
            Subject::Network(network) => networks.entry(network.digest.clone()).or_default(),
        };
        group.push(Observation { agent: measurement.fingerprint.clone(), measurement });
    }
    let rows = ops.values().filter_map(|group| merge_row(group)).collect();
    let networks = networks.values().filter_map(|group| merge_network(group)).collect();
    (rows, networks)
}

/// The measurements that count.
struct Merged<'a> {
    status: Status,
    newest: &'a Measurement,
    members: Vec<&'a Measurement>,
    between_agents: Option<BetweenAgents>,
}

impl<'a> Merged<'a> {
    fn of(observations: impl Iterator<Item = &'a Observation>) -> Option<Merged<'a>> {
        let mut chosen: BTreeMap<&str, &Measurement> = BTreeMap::new();
        for Observation { agent, measurement } in observations {
            let entry = chosen.entry(agent).or_insert(measurement);
            if preference(measurement) > preference(entry) {
                *entry = measurement;
            }
        }
        let status = typical_status(chosen.values().map(|m| m.status))?;
        let members: Vec<&Measurement> =
            chosen.into_values().filter(|m| m.status <= status).collect();
        let (members, between_agents) = without_disagreeing(members);
        let newest = *members.iter().max_by_key(|m| age(m))?;
        Some(Merged { status, newest, members, between_agents })
    }
}

/// The status of the median agent among those with a number; the better one if two are in the middle. `failed` only if
/// no agent has a number.
fn typical_status(all: impl Iterator<Item = Status>) -> Option<Status> {
    // `Status` is ordered from the best to the worst.
    let (mut with_number, mut failed): (Vec<Status>, Vec<Status>) =
        all.partition(|&status| status != Status::Failed);
    with_number.sort();
    let median = with_number.get(with_number.len().saturating_sub(1) / 2).copied();
    median.or_else(|| failed.pop())
}

/// The measurements without those that most others disagree with, and the differences between all of them. Without a
/// majority no measurement can be left out: two boxes that differ give a wide interval.
fn without_disagreeing(members: Vec<&Measurement>) -> (Vec<&Measurement>, Option<BetweenAgents>) {
    let values: Vec<f64> = members.iter().filter_map(|m| m.micros()).collect();
    if values.len() < 2 || values.len() < members.len() {
        return (members, None);
    }
    let centre = stats::median(&values);
    let agrees = |micros: f64| (micros / centre).max(centre / micros) <= DISAGREEMENT;
    let majority = 2 * values.iter().filter(|&&micros| agrees(micros)).count() > values.len();
    let counts = |micros: f64| !majority || agrees(micros);
    let published: Vec<f64> = values.iter().copied().filter(|&micros| counts(micros)).collect();
    let published = stats::median(&published);
    let spread = values.iter().map(|micros| (micros / published - 1.0).abs()).fold(0.0, f64::max);
    let out: Vec<f64> = values.iter().copied().filter(|&micros| !counts(micros)).collect();
    let between = BetweenAgents { spread, disagreeing_micros: stats::sorted(&out) };
    let members = members.into_iter().zip(values).filter(|&(_, micros)| counts(micros));
    (members.map(|(measurement, _)| measurement).collect(), Some(between))
}

/// The preference among an agent's measurements: a number before a refusal, then the later one.
fn preference(measurement: &Measurement) -> (bool, (i64, Uuid)) {
    (measurement.status != Status::Failed, age(measurement))
}

/// Microseconds, as in the database's order of measurements, and the id to break ties.
fn age(measurement: &Measurement) -> (i64, Uuid) {
    (measurement.finished_at.as_microsecond(), measurement.id)
}

fn latest(members: &[&Measurement], newest: &Measurement) -> Timestamp {
    members.iter().map(|m| m.finished_at).max().unwrap_or(newest.finished_at)
}

fn row(key: &OpKey, digest: &OpDigest, merged: &Merged<'_>) -> Row {
    let Merged { status, newest, ref members, ref between_agents } = *merged;
    let latencies: Vec<&Latency> = members.iter().filter_map(|m| m.latency.as_ref()).collect();
    let curve = merged_curve(&latencies);
    let reference = newest.run_config.reuse_distance_bytes;
    let point = curve.iter().find(|p| p.reuse_distance_bytes == reference);
    let energies: Vec<f64> =
        members.iter().filter_map(|m| Some(m.energy.as_ref()?.gross_mj)).collect();
    Row {
        op_type: key.op.clone(),
        input_h: key.shape.input_h,
        input_w: key.shape.input_w,
        channels_in: key.shape.channels_in,
        channels_out: key.shape.channels_out,
        stride: key.shape.stride,
        latency_micros: point.map(|p| p.latency_micros().1),
        energy_mj: (!energies.is_empty()).then(|| stats::median(&energies)),
        batch: key.shape.batch,
        op_digest: digest.clone(),
        status: status.into(),
        reason: newest.reason.clone().filter(|_| status != Status::Ok),
        ci95_rel: point.map(CurvePoint::ci95_rel),
        median_micros: point.map(|p| p.median_micros),
        samples: point.map_or(0, |p| p.samples),
        agents: u32::try_from(members.len()).unwrap_or(u32::MAX),
        between_agents: between_agents.clone(),
        measured_at: latest(members, newest),
        curve,
    }
}

/// Merges point by point over all measured reuse distances.
fn merged_curve(latencies: &[&Latency]) -> Vec<CurvePoint> {
    let mut by_distance: BTreeMap<u64, Vec<CurvePoint>> = BTreeMap::new();
    for point in latencies.iter().flat_map(|latency| &latency.curve) {
        by_distance.entry(point.reuse_distance_bytes).or_default().push(*point);
    }
    by_distance.into_iter().map(|(distance, points)| merged_point(distance, &points)).collect()
}

/// `points` is not empty: one for each agent.
fn merged_point(reuse_distance_bytes: u64, points: &[CurvePoint]) -> CurvePoint {
    let all = |field: fn(&CurvePoint) -> f64| points.iter().map(field).collect::<Vec<f64>>();
    let sum = |field: fn(&CurvePoint) -> u32| points.iter().map(field).fold(0, u32::saturating_add);
    let device: Vec<Interval> =
        points.iter().map(|p| (p.ci95_low_micros, p.quiet_micros, p.ci95_high_micros)).collect();
    let (ci95_low_micros, quiet_micros, ci95_high_micros) = of_class(&device);
    // None unless each agent has a host time.
    let host: Option<Vec<Interval>> = points.iter().map(CurvePoint::host_interval).collect();
    CurvePoint {
        reuse_distance_bytes,
        quiet_micros,
        ci95_low_micros,
        ci95_high_micros,
        median_micros: stats::median(&all(|p| p.median_micros)),
        samples: sum(|p| p.samples),
        visits: sum(|p| p.visits),
        calls_per_sample: points.iter().map(|p| p.calls_per_sample).max().unwrap_or(1),
        host_micros: None,
        host_ci95_low_micros: None,
        host_ci95_high_micros: None,
    }
    .with_host(host.map(|host| of_class(&host)))
}

/// Lower end, value, and upper end of a 95% interval, in microseconds.
type Interval = (f64, f64, f64);

/// The typical box of a class: the median of the agents' values, with its interval. There is at least one agent.
fn of_class(agents: &[Interval]) -> Interval {
    if let [only] = agents {
        return *only;
    }
    let median = stats::median(&agents.iter().map(|(_, value, _)| *value).collect::<Vec<f64>>());
    let factor = class_interval(agents).exp();
    (median / factor, median, median * factor)
}

/// Assumed relative spread between boxes of one class, in addition to the observed spread; its weight is
/// [`ASSUMED_AGENTS`] agents. Identical GPUs of large clusters differ by 2% to 8% (arXiv 2208.11035).
const ASSUMED_SPREAD: f64 = 0.02;

/// Two agents that agree by chance must not give a narrow interval.
const ASSUMED_AGENTS: f64 = 2.0;

/// Ratio of the standard error of the median of 2, 3, 4 and more normal values to that of their mean.
const MEDIAN_OVER_MEAN: [f64; 4] = [1.0, 1.16, 1.09, 1.25];

/// Half the width, in logarithms, of the 95% interval of the typical box of a class, from at least two boxes. It uses a
/// random-effects model, where the spread between the agents contains both their differences and their own errors
/// (Hartung and Knapp 2001, Statistics in Medicine 20:3875). It is never narrower than the agents' own intervals allow.
fn class_interval(agents: &[Interval]) -> f64 {
    let count = agents.len() as f64;
    let logs: Vec<f64> = agents.iter().map(|(_, value, _)| value.ln()).collect();
    let mean = logs.iter().sum::<f64>() / count;
    let squares: f64 = logs.iter().map(|value| (value - mean).powi(2)).sum();
    let freedom = ASSUMED_AGENTS + count - 1.0;
    let spread = ((ASSUMED_AGENTS * ASSUMED_SPREAD.powi(2) + squares) / freedom).sqrt();
    let median = MEDIAN_OVER_MEAN[(agents.len() - 2).min(MEDIAN_OVER_MEAN.len() - 1)];
    let between = stats::student_t_975(freedom) * spread * median;
    let widths = agents.iter().map(|(low, value, high)| (high - low) / 2.0 / value);
    let within = widths.sum::<f64>() / count;
    between.max(within) / count.sqrt()
}

/// The order of rows in a table: by key, and by definition if one name has several.
pub fn row_order(row: &Row) -> impl Ord + use<> {
    (row.key(), Reverse(row.measured_at), row.op_digest.clone())
}

#[cfg(test)]
mod tests;
