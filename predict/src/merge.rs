//! From the measurements of one key to the row of a table, and from those of one network to its ground
//! truth. Pure: the same measurements in any order give the same result.
//!
//! Each agent counts once, with its latest number; a refusal counts only for an agent that has no
//! number. Of the agents, those with the best status are merged. Each point of the curve is the
//! median over the agents that measured it, and its interval reaches over all their intervals: agents
//! that disagree give a wide interval instead of a hidden mean. One that disagrees with a majority is
//! named beside the row and is no part of it.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use jiff::Timestamp;
use latlas_shared::{
    BetweenAgents, CurvePoint, Latency, MeasuredNetwork, Measurement, NetworkDigest, Row, Status,
    Subject,
};
use ops_catalog::{OpDigest, OpKey};
use uuid::Uuid;

use crate::stats;

/// One measurement and who made it.
#[derive(Debug, Clone)]
pub struct Observation {
    /// What tells the agent from others.
    pub agent: String,
    /// What it saw.
    pub measurement: Measurement,
}

/// Two boxes of one class disagree when one takes more than this times what the other does. Identical
/// GPUs of five large clusters differed by 8% on average and by 22% at most, but for broken ones
/// (arXiv 2208.11035); all ops of one box move by a few percent between runs.
pub const DISAGREEMENT: f64 = 1.3;

/// The row of these measurements, which are all of one key, definition and run config.
///
/// Measurements of whole networks are passed over; there is no row of nothing.
pub fn merge_row(observations: &[Observation]) -> Option<Row> {
    let of_ops = |o: &&Observation| matches!(o.measurement.subject, Subject::Op { .. });
    let merged = Merged::of(observations.iter().filter(of_ops))?;
    let Subject::Op { key, digest } = &merged.newest.subject else { return None };
    Some(row(key, digest, &merged))
}

/// The ground truth of these measurements, which are all of one network and run config.
///
/// Measurements of ops are passed over; where nobody has a number there is no truth.
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
        status,
        reason: newest.reason.clone().filter(|_| status != Status::Ok),
        agents: u32::try_from(members.len()).unwrap_or(u32::MAX),
        between_agents,
        measured_at: latest(&members, newest),
    })
}

/// All rows and networks of some measurements, which are all of one hardware id and run config. The boxes
/// of one fingerprint count as one agent.
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
        // `Status` is ordered from the best to the worst.
        let status = chosen.values().map(|m| m.status).min()?;
        let members: Vec<&Measurement> =
            chosen.into_values().filter(|m| m.status == status).collect();
        let (members, between_agents) = without_disagreeing(members);
        let newest = *members.iter().max_by_key(|m| age(m))?;
        Some(Merged { status, newest, members, between_agents })
    }
}

/// The measurements without those that most others disagree with, and how all of them differ. Where no
/// majority agrees nobody can be left out: two boxes that differ give a wide interval.
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

/// What decides which of an agent's measurements counts: a number before a refusal, then the later one.
fn preference(measurement: &Measurement) -> (bool, (i64, Uuid)) {
    (measurement.status != Status::Failed, age(measurement))
}

/// Microseconds, as a database orders measurements, and the id to tell equal times apart.
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

/// Point by point over the reuse distances that anybody measured.
fn merged_curve(latencies: &[&Latency]) -> Vec<CurvePoint> {
    let mut by_distance: BTreeMap<u64, Vec<CurvePoint>> = BTreeMap::new();
    for point in latencies.iter().flat_map(|latency| &latency.curve) {
        by_distance.entry(point.reuse_distance_bytes).or_default().push(*point);
    }
    by_distance.into_iter().map(|(distance, points)| merged_point(distance, &points)).collect()
}

/// `points` is not empty.
fn merged_point(reuse_distance_bytes: u64, points: &[CurvePoint]) -> CurvePoint {
    let all = |field: fn(&CurvePoint) -> f64| points.iter().map(field).collect::<Vec<f64>>();
    let sum = |field: fn(&CurvePoint) -> u32| points.iter().map(field).fold(0, u32::saturating_add);
    CurvePoint {
        reuse_distance_bytes,
        quiet_micros: stats::median(&all(|p| p.quiet_micros)),
        ci95_low_micros: all(|p| p.ci95_low_micros).into_iter().fold(f64::INFINITY, f64::min),
        ci95_high_micros: all(|p| p.ci95_high_micros).into_iter().fold(0.0, f64::max),
        median_micros: stats::median(&all(|p| p.median_micros)),
        samples: sum(|p| p.samples),
        visits: sum(|p| p.visits),
        calls_per_sample: points.iter().map(|p| p.calls_per_sample).max().unwrap_or(1),
        host_micros: host_micros(points),
    }
}

/// The median of the agents' host times; none unless each has one.
fn host_micros(points: &[CurvePoint]) -> Option<f64> {
    let times: Option<Vec<f64>> = points.iter().map(|point| point.host_micros).collect();
    Some(stats::median(&times?))
}

/// The order of rows in a table: by key, and by definition where one name had several.
pub fn row_order(row: &Row) -> impl Ord + use<> {
    (row.key(), Reverse(row.measured_at), row.op_digest.clone())
}

#[cfg(test)]
mod tests;
