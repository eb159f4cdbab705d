//! From the measurements of one key to the row of a table. Pure: the same measurements in any order give
//! the same row.
//!
//! Each agent counts once, with its latest number; a refusal counts only for an agent that has no
//! number. Of the agents, those with the best status make up the row. Each point of the curve is the
//! median over the agents that measured it, and its interval reaches over all their intervals: agents
//! that disagree give a wide interval instead of a hidden mean.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use jiff::Timestamp;
use latlas_shared::{CurvePoint, Latency, Measurement, Row, Status, Subject, stats};
use ops_catalog::{OpDigest, OpKey};
use uuid::Uuid;

/// One measurement and who made it.
#[derive(Debug, Clone)]
pub struct Observation {
    /// The agent.
    pub agent: Uuid,
    /// What it saw.
    pub measurement: Measurement,
}

/// The row of these measurements, which are all of one key, definition and run config.
///
/// Measurements of whole networks are passed over; there is no row of nothing.
pub fn merge(observations: &[Observation]) -> Option<Row> {
    let mut latest: BTreeMap<Uuid, &Measurement> = BTreeMap::new();
    for Observation { agent, measurement } in observations {
        if !matches!(measurement.subject, Subject::Op { .. }) {
            continue;
        }
        let entry = latest.entry(*agent).or_insert(measurement);
        if preference(measurement) > preference(entry) {
            *entry = measurement;
        }
    }
    // `Status` is ordered from the best to the worst.
    let status = latest.values().map(|m| m.status).min()?;
    let members: Vec<&Measurement> = latest.into_values().filter(|m| m.status == status).collect();
    let newest = *members.iter().max_by_key(|m| age(m))?;
    let Subject::Op { key, digest } = &newest.subject else { return None };
    Some(row(key, digest, status, newest, &members))
}

/// What decides which of an agent's measurements counts: a number before a refusal, then the later one.
fn preference(measurement: &Measurement) -> (bool, (i64, Uuid)) {
    (measurement.status != Status::Failed, age(measurement))
}

/// Microseconds, as the database orders measurements, and the id to tell equal times apart.
fn age(measurement: &Measurement) -> (i64, Uuid) {
    (measurement.finished_at.as_microsecond(), measurement.id)
}

fn row(
    key: &OpKey,
    digest: &OpDigest,
    status: Status,
    newest: &Measurement,
    members: &[&Measurement],
) -> Row {
    let latencies: Vec<&Latency> = members.iter().filter_map(|m| m.latency.as_ref()).collect();
    let curve = merged_curve(&latencies);
    let reference = newest.run_config.reuse_distance_bytes;
    let point = curve.iter().find(|p| p.reuse_distance_bytes == reference);
    let energies: Vec<f64> =
        members.iter().filter_map(|m| Some(m.energy.as_ref()?.gross_mj)).collect();
    let measured_at: Timestamp =
        members.iter().map(|m| m.finished_at).max().unwrap_or(newest.finished_at);
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
        status,
        reason: newest.reason.clone().filter(|_| status != Status::Ok),
        ci95_rel: point.map(CurvePoint::ci95_rel),
        median_micros: point.map(|p| p.median_micros),
        samples: point.map_or(0, |p| p.samples),
        agents: u32::try_from(members.len()).unwrap_or(u32::MAX),
        measured_at,
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
mod tests {
    use super::*;
    use crate::testing;
    use proptest::prelude::*;

    fn observation(agent: u128, status: Status, micros: f64, at: i64) -> Observation {
        let mut measurement = testing::measurement("Conv3x3:n1-h8-w8-i4-o4-s1", micros);
        measurement.finished_at = Timestamp::from_second(at).unwrap();
        measurement.status = status;
        if status == Status::Failed {
            measurement.latency = None;
            measurement.reason = Some("out of memory".into());
        }
        Observation { agent: Uuid::from_u128(agent), measurement }
    }

    #[test]
    fn an_agent_counts_once_with_its_latest_number() {
        let row = merge(&[
            observation(1, Status::Ok, 10.0, 100),
            observation(1, Status::Ok, 20.0, 200),
            observation(1, Status::Failed, 0.0, 300),
        ])
        .unwrap();
        assert_eq!((row.latency_micros, row.agents, row.status), (Some(20.0), 1, Status::Ok));
    }

    #[test]
    fn agents_are_merged_by_their_median_and_the_spread_shows() {
        let row = merge(&[
            observation(1, Status::Ok, 10.0, 100),
            observation(2, Status::Ok, 12.0, 100),
            observation(3, Status::Ok, 40.0, 100),
        ])
        .unwrap();
        assert_eq!((row.latency_micros, row.agents), (Some(12.0), 3));
        let (low, _, high) = row.read_curve(8e6).unwrap();
        assert!(low < 10.0 && high > 40.0, "{low} {high}");
    }

    #[test]
    fn a_row_is_failed_only_if_nobody_has_a_number() {
        let failed = observation(1, Status::Failed, 0.0, 500);
        let row = merge(std::slice::from_ref(&failed)).unwrap();
        assert_eq!((row.status, row.latency_micros, row.samples), (Status::Failed, None, 0));
        assert_eq!(row.reason.as_deref(), Some("out of memory"));
        let row = merge(&[failed, observation(2, Status::NotConverged, 9.0, 100)]).unwrap();
        assert_eq!((row.status, row.latency_micros), (Status::NotConverged, Some(9.0)));
    }

    #[test]
    fn there_is_no_row_of_a_network() {
        let mut network = observation(1, Status::Ok, 10.0, 100);
        network.measurement.subject = Subject::Network { name: "resnet18".into() };
        assert!(merge(&[network]).is_none());
        assert!(merge(&[]).is_none());
    }

    fn observations() -> impl Strategy<Value = Vec<Observation>> {
        let status =
            prop_oneof![Just(Status::Ok), Just(Status::NotConverged), Just(Status::Failed)];
        // Few agents and few times, so that ties happen.
        let one = (0u128..4, status, 1.0f64..1e4, 0i64..4, any::<u128>());
        let one = one.prop_map(|(agent, status, micros, at, id)| {
            let mut observation = observation(agent, status, micros, at);
            observation.measurement.id = Uuid::from_u128(id);
            observation
        });
        prop::collection::vec(one, 1..12)
    }

    proptest! {
        #[test]
        fn the_order_of_measurements_does_not_matter(
            (sorted, shuffled) in observations().prop_flat_map(|o| (Just(o.clone()), Just(o).prop_shuffle())),
        ) {
            prop_assert_eq!(merge(&sorted), merge(&shuffled));
        }

        #[test]
        fn merging_the_same_again_changes_nothing(observations in observations()) {
            let twice = [observations.clone(), observations.clone()].concat();
            prop_assert_eq!(merge(&observations), merge(&twice));
        }

        #[test]
        fn a_row_is_sound(observations in observations()) {
            let row = merge(&observations).unwrap();
            let values: Vec<f64> = observations
                .iter()
                .filter_map(|o| Some(o.measurement.latency.as_ref()?.curve[0].quiet_micros))
                .collect();
            match row.latency_micros {
                None => prop_assert!(values.is_empty() && row.curve.is_empty()),
                Some(latency) => {
                    let curve = Latency { curve: row.curve };
                    prop_assert!(curve.is_sound());
                    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
                    let high = values.iter().copied().fold(0.0, f64::max);
                    prop_assert!(low <= latency && latency <= high);
                }
            }
        }

        #[test]
        fn one_agent_s_number_is_taken_as_it_is(micros in 1.0f64..1e6) {
            let only = observation(1, Status::Ok, micros, 5);
            let row = merge(std::slice::from_ref(&only)).unwrap();
            prop_assert_eq!(row.curve, only.measurement.latency.unwrap().curve);
        }
    }
}
