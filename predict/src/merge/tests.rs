use super::*;
use crate::testing::Chance;
use latlas_shared::RowStatus;
use latlas_shared::testing::{measurement, network_measurement, sustained_measurement};
use proptest::prelude::*;

fn observation(agent: u128, status: Status, micros: f64, at: i64) -> Observation {
    let mut measurement = measurement("Conv3x3:n1-h8-w8-i4-o4-s1", micros);
    measurement.finished_at = Timestamp::from_second(at).unwrap();
    measurement.status = status;
    if status == Status::Failed {
        measurement.latency = None;
        measurement.reason = Some("out of memory".into());
    }
    Observation { agent: agent.to_string(), measurement }
}

#[test]
fn an_agent_counts_once_with_its_latest_number() {
    let row = merge_row(&[
        observation(1, Status::Ok, 10.0, 100),
        observation(1, Status::Ok, 20.0, 200),
        observation(1, Status::Failed, 0.0, 300),
    ])
    .unwrap();
    assert_eq!((row.latency_micros, row.agents, row.status), (Some(20.0), 1, RowStatus::Ok));
}

/// The row of agents that measured these values.
fn row_of(values: &[f64]) -> Row {
    let observations: Vec<Observation> = (1u128..)
        .zip(values)
        .map(|(agent, &micros)| observation(agent, Status::Ok, micros, 100))
        .collect();
    merge_row(&observations).unwrap()
}

#[test]
fn agents_are_merged_by_their_median_and_the_spread_shows() {
    let row = row_of(&[10.0, 11.0, 12.0]);
    assert_eq!((row.latency_micros, row.agents), (Some(11.0), 3));
    let (low, _, high) = row.read_curve(8e6).unwrap();
    assert!(low < 10.0 && high > 12.0, "{low} {high}");
    let between = row.between_agents.unwrap();
    assert!((between.spread - 1.0 / 11.0).abs() < 1e-12);
    assert!(between.disagreeing_micros.is_empty());
    assert_eq!(row_of(&[10.0]).between_agents, None);
}

#[test]
fn an_agent_that_disagrees_is_shown_and_not_averaged_in() {
    let row = row_of(&[40.0, 10.0, 12.0]);
    assert_eq!((row.latency_micros, row.agents), (Some(11.0), 2));
    let (_, _, high) = row.read_curve(8e6).unwrap();
    assert!(high < 14.0, "{high}");
    let between = row.between_agents.unwrap();
    assert_eq!(between.disagreeing_micros, [40.0]);
    assert!((between.spread - (40.0 / 11.0 - 1.0)).abs() < 1e-12);
}

#[test]
fn without_a_majority_nobody_is_left_out() {
    for values in [&[10.0, 20.0][..], &[10.0, 20.0, 40.0], &[10.0, 10.0, 20.0, 20.0]] {
        let row = row_of(values);
        assert_eq!(row.agents as usize, values.len());
        let (low, _, high) = row.read_curve(8e6).unwrap();
        assert!(low < 10.0 && high > values[values.len() - 1], "{low} {high}");
        assert!(row.between_agents.unwrap().disagreeing_micros.is_empty());
    }
}

/// One agent with a good status does not hide a majority, and one bad agent does not spoil a good majority.
#[test]
fn the_status_is_that_of_the_median_agent() {
    let row = |statuses: &[Status]| {
        let agents: Vec<Observation> = (1u128..)
            .zip(statuses)
            .map(|(agent, &status)| observation(agent, status, 10.0, 100))
            .collect();
        let row = merge_row(&agents).unwrap();
        (row.status, row.agents)
    };
    let (ok, bad) = (Status::Ok, Status::NotConverged);
    assert_eq!(row(&[ok, bad, bad]), (RowStatus::NotConverged, 3));
    assert_eq!(row(&[ok, ok, bad]), (RowStatus::Ok, 2));
    assert_eq!(row(&[ok, bad]), (RowStatus::Ok, 1));
    assert_eq!(row(&[ok, Status::Failed, Status::Failed]), (RowStatus::Ok, 1));
}

/// Agents of a class whose boxes truly differ by 3%: the interval contains the typical box, and more agents make it
/// narrower.
#[test]
fn a_merged_interval_is_one_for_the_class() {
    let mut chance = Chance::new(4);
    let mut widths = Vec::new();
    for agents in [2, 4, 8, 50] {
        let (mut inside, mut width) = (0, 0.0);
        let trials = 1000;
        for _ in 0..trials {
            let values: Vec<f64> =
                (0..agents).map(|_| 100.0 * (0.03 * chance.normal()).exp()).collect();
            let (low, _, high) = row_of(&values).read_curve(8e6).unwrap();
            inside += i32::from((low..=high).contains(&100.0));
            width += (high - low) / 200.0 / f64::from(trials);
        }
        let share = f64::from(inside) / f64::from(trials);
        assert!((0.90..=0.97).contains(&share) || agents == 2, "{agents} agents: {share}, {width}");
        assert!(share >= 0.90, "{agents} agents: {share}, {width}");
        widths.push(width);
    }
    assert!(widths.is_sorted_by(|a, b| a > b), "{widths:?}");
}

#[test]
fn a_row_is_failed_only_if_nobody_has_a_number() {
    let failed = observation(1, Status::Failed, 0.0, 500);
    let row = merge_row(std::slice::from_ref(&failed)).unwrap();
    assert_eq!((row.status, row.latency_micros, row.samples), (RowStatus::Failed, None, 0));
    assert_eq!(row.reason.as_deref(), Some("out of memory"));
    let row = merge_row(&[failed, observation(2, Status::NotConverged, 9.0, 100)]).unwrap();
    assert_eq!((row.status, row.latency_micros), (RowStatus::NotConverged, Some(9.0)));
}

#[test]
fn there_is_no_row_of_a_network() {
    let measurement = network_measurement("demo_conv", 10.0);
    let observation = Observation { agent: "a".into(), measurement };
    assert!(merge_row(std::slice::from_ref(&observation)).is_none());
    assert!(merge_row(&[]).is_none());
    assert_eq!(merge_network(&[observation]).unwrap().network.name(), "demo_conv");
}

#[test]
fn networks_are_merged_by_the_rules_of_rows() {
    let seen = |agent: &str, status, micros| {
        let mut measurement = network_measurement("demo_conv", micros);
        measurement.status = status;
        if status == Status::Failed {
            measurement.latency = None;
        }
        Observation { agent: agent.into(), measurement }
    };
    let truth = merge_network(&[
        seen("a", Status::Ok, 1000.0),
        seen("b", Status::Ok, 1300.0),
        seen("c", Status::Ok, 1100.0),
        seen("d", Status::NotConverged, 9.0),
        seen("e", Status::Failed, 9.0),
    ])
    .unwrap();
    assert_eq!((truth.latency.quiet_micros, truth.agents, truth.status), (1100.0, 3, Status::Ok));
    assert!(truth.latency.ci95_low_micros < 1000.0 && truth.latency.ci95_high_micros > 1300.0);
    assert!(merge_network(&[seen("e", Status::Failed, 9.0)]).is_none());
    let row = observation(1, Status::Ok, 10.0, 100);
    assert!(merge_network(&[row]).is_none());
}

#[test]
fn measurements_are_sorted_into_rows_and_networks() {
    let (one, two) = ("Conv3x3:n1-h8-w8-i4-o4-s1", "Conv3x3:n1-h8-w8-i4-o5-s1");
    let mut other_box = measurement(one, 30.0);
    other_box.fingerprint = "f2".into();
    let mut later = measurement(one, 20.0);
    later.finished_at += jiff::SignedDuration::from_secs(1);
    let (rows, networks) = merge_all(vec![
        measurement(two, 5.0),
        measurement(one, 10.0),
        network_measurement("demo_conv", 9.0),
        other_box,
        later,
        network_measurement("demo_conv", 9.0),
    ]);
    let found: Vec<_> =
        rows.iter().map(|row| (row.key().to_string(), row.latency_micros, row.agents)).collect();
    let expected = [(one, Some(25.0), 2), (two, Some(5.0), 1)];
    assert_eq!(found, expected.map(|(key, micros, agents)| (key.to_owned(), micros, agents)));
    assert_eq!((networks.len(), networks[0].agents), (1, 1));
}

fn observations() -> impl Strategy<Value = Vec<Observation>> {
    let status = prop_oneof![Just(Status::Ok), Just(Status::NotConverged), Just(Status::Failed)];
    // Few agents and few times, so that ties occur.
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
        prop_assert_eq!(merge_row(&sorted), merge_row(&shuffled));
    }

    #[test]
    fn merging_the_same_again_changes_nothing(observations in observations()) {
        let twice = [observations.clone(), observations.clone()].concat();
        prop_assert_eq!(merge_row(&observations), merge_row(&twice));
    }

    #[test]
    fn a_row_is_sound(observations in observations()) {
        let row = merge_row(&observations).unwrap();
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
    fn networks_in_any_order_give_one_truth(
        (sorted, shuffled) in observations().prop_flat_map(|o| (Just(o.clone()), Just(o).prop_shuffle())),
    ) {
        let as_networks = |observations: Vec<Observation>| -> Vec<Observation> {
            let subject = network_measurement("demo_conv", 1.0).subject;
            observations
                .into_iter()
                .map(|mut observation| {
                    observation.measurement.subject = subject.clone();
                    observation.measurement.latency.iter_mut().for_each(|latency| {
                        latency.curve[0].reuse_distance_bytes = 0;
                    });
                    observation
                })
                .collect()
        };
        let (sorted, shuffled) = (as_networks(sorted), as_networks(shuffled));
        let merged = merge_network(&sorted);
        prop_assert_eq!(&merged, &merge_network(&shuffled));
        let failed = sorted.iter().all(|o| o.measurement.status == Status::Failed);
        prop_assert_eq!(merged.is_none(), failed);
    }

    #[test]
    fn a_minority_moves_no_row_out_of_the_majority_s_range(
        honest in prop::collection::vec(100.0f64..110.0, 3..8),
        liar in 1e-3f64..1e6,
    ) {
        let row = row_of(&[honest.as_slice(), &[liar]].concat());
        let value = row.latency_micros.unwrap();
        prop_assert!((100.0..110.0).contains(&value) || (70.0..150.0).contains(&liar), "{}", value);
        let disagreeing = row.between_agents.unwrap().disagreeing_micros;
        prop_assert!(disagreeing.iter().all(|&micros| micros == liar));
        prop_assert_eq!(disagreeing.is_empty(), row.agents as usize > honest.len());
    }

    #[test]
    fn one_agent_s_number_is_taken_as_it_is(micros in 1.0f64..1e6) {
        let only = observation(1, Status::Ok, micros, 5);
        let row = merge_row(std::slice::from_ref(&only)).unwrap();
        prop_assert_eq!(row.curve, only.measurement.latency.unwrap().curve);
    }
}

#[test]
fn the_ratio_of_a_sustained_run_is_the_median_of_the_agents() {
    let run = |agent: u128, micros: f64, over_burst: f64| Observation {
        agent: agent.to_string(),
        measurement: sustained_measurement("demo_conv", micros, over_burst),
    };
    let merged = merge_network(&[run(1, 100.0, 1.1), run(2, 110.0, 1.2), run(3, 105.0, 1.9)]);
    let sustained = merged.unwrap().sustained.unwrap();
    assert_eq!((sustained.seconds, sustained.burst_micros), (600, 105.0));
    assert!((sustained.over_burst() - 1.2).abs() < 1e-12, "{sustained:?}");
    let measurement = network_measurement("demo_conv", 100.0);
    let usual = merge_network(&[Observation { agent: "a".into(), measurement }]).unwrap();
    assert_eq!(usual.sustained, None);
}

#[test]
fn a_sustained_run_is_not_merged_with_the_usual_network() {
    let (_, networks) = merge_all(vec![
        network_measurement("demo_conv", 100.0),
        sustained_measurement("demo_conv", 100.0, 1.2),
    ]);
    let names: Vec<String> = networks.iter().map(|n| n.network.to_string()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names.contains(&"demo_conv, sustained".to_owned()), "{names:?}");
}
