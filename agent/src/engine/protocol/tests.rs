use super::*;
use latlas_predict::testing::{Chance, MACHINES};
use proptest::prelude::*;

#[test]
fn checks_come_on_a_geometric_schedule() {
    let protocol = Protocol::for_ops(8 * MIB);
    let checks: Vec<u32> = (1..=60).filter(|&n| protocol.is_check(n)).collect();
    assert_eq!(checks, [6, 9, 14, 20, 30, 46, 60]);
}

/// A row ends at a check where its interval happens to be narrow. The interval must hold under that rule, and not
/// only for a number of visits that was fixed before. A machine that drifts for longer than a row is visited is
/// left out: no statistic of the row can see that, and the published interval has a share for it.
#[test]
fn a_visit_takes_fewer_samples_where_each_is_a_mean_over_a_block() {
    let samples = |protocol: &Protocol| -> Vec<u32> {
        protocol.passes(3, Some(10.0), false).iter().map(|pass| pass.samples).collect()
    };
    let mut ops = Protocol::for_ops(8 * MIB);
    assert_eq!(samples(&ops), [8, 2, 2, 2, 2]);
    ops.sample_blocks();
    assert_eq!(samples(&ops), [4, 1, 1, 1, 1]);
    let mut networks = Protocol::for_networks();
    networks.sample_blocks();
    assert_eq!(samples(&networks), [8]);
}

#[test]
fn intervals_hold_although_sampling_stops_on_narrow_ones() {
    let protocol = Protocol::for_ops(8 * MIB);
    for (name, machine) in MACHINES.into_iter().filter(|(name, _)| *name != "drifting") {
        let mut chance = Chance::new(11);
        let most = f64::from(protocol.most_visits);
        let truth = {
            let long: Vec<f64> =
                (0..60_000).flat_map(|i| machine(&mut chance, f64::from(i % 60) / most)).collect();
            stats::quantile_of_sorted(&stats::sorted(&long), QUIET)
        };
        let mut inside = 0;
        let trials = 600;
        for _ in 0..trials {
            let mut visits: Vec<Visit> = Vec::new();
            loop {
                visits.push(machine(&mut chance, visits.len() as f64 / most));
                let count = u32::try_from(visits.len()).unwrap();
                let checked = protocol.is_check(count);
                if checked && protocol.decide(&visits, Duration::ZERO, 0.0) != Decision::Continue {
                    break;
                }
            }
            let (low, high) = stats::quantile_interval(&visits, QUIET).unwrap();
            inside += i32::from((low..=high).contains(&truth));
        }
        let share = f64::from(inside) / f64::from(trials);
        assert!(share >= 0.90, "{name}: {share}");
    }
}

#[test]
fn slow_work_is_sampled_less_often() {
    let protocol = Protocol::for_ops(8 * MIB);
    let at_reference = |micros| {
        let passes = protocol.passes(0, micros, false);
        passes.iter().find(|p| p.reuse_distance_bytes == 8 * MIB).unwrap().samples
    };
    assert_eq!(at_reference(Some(10.0)), 8);
    assert_eq!(at_reference(Some(20_000.0)), 2);
    assert_eq!(at_reference(Some(1e9)), 1);
    assert_eq!(at_reference(None), 1);
}

#[test]
fn every_distance_has_an_interval_at_the_first_check() {
    let protocol = Protocol::for_ops(8 * MIB);
    let sampled: Vec<u64> = (0..protocol.first_check)
        .flat_map(|visit| protocol.passes(visit, Some(10.0), false))
        .map(|pass| pass.reuse_distance_bytes)
        .collect();
    for distance in &protocol.curve {
        assert!(sampled.iter().filter(|&d| d == distance).count() >= 2, "{distance}");
    }
    let visits = |range: std::ops::Range<u32>| {
        range.flat_map(|visit| protocol.passes(visit, Some(10.0), false)).count()
    };
    assert_eq!((visits(0..6), visits(6..9)), (6 * 5, 3 * 4));
    assert_eq!(Protocol::for_networks().passes(5, Some(10.0), false).len(), 1);
}

#[test]
fn only_the_host_s_time_of_a_host_bound_op_is_sampled_in_the_end() {
    let op = Protocol::for_ops(8 * MIB);
    let host_only = |protocol: &Protocol, visit, host_bound| {
        let passes = protocol.passes(visit, Some(10.0), host_bound);
        passes.iter().all(|pass| pass.host_only)
    };
    assert!(!host_only(&op, op.first_check - 1, true));
    assert!(host_only(&op, op.first_check, true));
    assert!(!host_only(&op, op.first_check, false));
    // A network's samples are its truth.
    assert!(!host_only(&Protocol::for_networks(), 30, true));
}

#[test]
fn a_published_interval_is_never_narrower_than_what_happens_between_runs() {
    let (low, high) = published_interval(100.0, (100.0, 100.0), 0.02);
    assert!((low - 98.0).abs() < 1e-9 && (high - 102.0).abs() < 1e-9);
    let (low, high) = published_interval(100.0, (90.0, 100.0), 0.02);
    assert!(low < 90.0 && high < 102.1);
}

#[test]
fn a_span_is_suspect_when_most_of_it_is_slow() {
    assert!(is_suspect(&[1.2, 1.3, 1.15, 0.9]));
    assert!(!is_suspect(&[1.2, 1.3, 1.0, 0.9]));
    assert!(!is_suspect(&[2.0, 2.0, 2.0]), "too few to say anything");
    let before = vec![vec![10.0, 11.0], vec![9.0], vec![10.0]];
    assert_eq!(slowness(&before, &vec![20.0, 20.0]), Some(2.0));
    assert_eq!(slowness(&before[..2], &vec![20.0]), None);
    assert_eq!(slowness(&before, &vec![]), None);
}

#[test]
fn few_others_are_negligible() {
    for (staying, others, left, expected) in [
        (5, 0, 0, OtherWork::Negligible),
        (5, 4, 0, OtherWork::Negligible),
        (5, 5, 3, OtherWork::Pending),
        (5, 5, 2, OtherWork::MostlyDone),
        (0, 5, 5, OtherWork::Pending),
    ] {
        assert_eq!(other_work(staying, others, left), expected, "{staying} {others} {left}");
    }
}

#[test]
fn a_run_is_disturbed_when_many_of_its_spans_are() {
    for (spans, suspect, disturbed) in [
        (19, 19, false),
        (20, 2, false),
        (20, 3, true),
        (657, 82, false),
        (657, 122, true),
        (618, 4, false),
    ] {
        assert_eq!(is_disturbed_run(spans, suspect), disturbed, "{suspect} of {spans}");
    }
}

#[test]
fn few_spans_are_made_again() {
    // The worst case: every span is suspect.
    let (mut spans, mut redone) = (0, 0);
    for _ in 0..1000 {
        spans += 1;
        redone += u32::from(may_redo(spans, redone));
    }
    assert_eq!(redone, 1 + 1000 / REDO_ONE_IN);
}

#[test]
fn the_resolution_is_half_the_span_of_half_the_calls() {
    let calls: Vec<f64> = (0..21).map(|n| 1.0 + 0.1 * f64::from(n)).collect();
    assert!((resolution(&calls) - 0.5).abs() < 1e-9);
    assert_eq!(resolution(&calls[..19]), 0.0, "too few to say anything");
    // A call in ten that is disturbed says nothing of the others.
    let disturbed: Vec<f64> = calls.iter().copied().chain([900.0, 1000.0]).collect();
    assert!((resolution(&disturbed) - 0.55).abs() < 1e-9);
}

#[test]
fn the_resolution_ends_short_rows_only() {
    let protocol = Protocol::for_ops(8 * MIB);
    for (micros, expected) in [(1.0, 0.1), (4.0, 0.05), (9.9, 0.02), (10.0, 0.02), (1e4, 0.02)] {
        let enough = protocol.enough(micros, 0.2);
        assert!((enough - expected).abs() < 0.001, "{micros} us: {enough}");
    }
}

/// A box whose clock ticks every 40 ns, and whose calls jitter: by up to 4 us where they compute
/// nothing, two and a half times as much where they do, as more code and data has left the caches then.
struct Jittery(fastrand::Rng);

impl Jittery {
    fn call(&mut self, micros: f64, jitter: f64) -> f64 {
        let exact: f64 = (0..4).map(|_| jitter * self.0.f64()).sum::<f64>() + micros;
        (exact / 0.04).round() * 0.04
    }

    fn visits(&mut self, micros: f64, jitter: f64, count: usize) -> Vec<Visit> {
        (0..count).map(|_| (0..8).map(|_| self.call(micros, jitter)).collect()).collect()
    }

    /// The end of a row of so many microseconds, and after how many visits it came.
    fn row(&mut self, micros: f64, resolution: f64) -> (Decision, usize) {
        let protocol = Protocol::for_ops(8 * MIB);
        let visits = self.visits(micros, 2.5, protocol.most_visits as usize);
        (1..=visits.len())
            .filter(|&count| protocol.is_check(count as u32))
            .map(|count| (protocol.decide(&visits[..count], Duration::ZERO, resolution), count))
            .find(|(decision, _)| *decision != Decision::Continue)
            .expect("the last visit ends it")
    }
}

#[test]
fn ops_of_a_few_microseconds_end_where_the_box_tells_no_more_apart() {
    let (mut rows, mut with, mut without) = (0, 0, 0);
    for seed in 0..100 {
        let mut machine = Jittery(fastrand::Rng::with_seed(seed));
        let resolution = resolution(&machine.visits(1.0, 1.0, 30).concat());
        for micros in [1.0, 3.0, 6.0] {
            rows += 1;
            with += usize::from(machine.row(micros, resolution).0 == Decision::Converged);
            without += usize::from(machine.row(micros, 0.0).0 == Decision::Converged);
        }
        // Of an op of a millisecond the same jitter is nothing.
        assert_eq!(machine.row(1000.0, resolution), (Decision::Converged, 6));
        assert_eq!(machine.row(1000.0, 0.0), (Decision::Converged, 6));
    }
    assert!(100 * with > 98 * rows, "{with} of {rows} converge");
    assert!(100 * without < 10 * rows, "{without} of {rows} converge by their share alone");
}

proptest! {
    #[test]
    fn a_resolution_never_asks_for_more_and_never_for_less_than_the_widest(
        micros in 0.1f64..1e5, resolution in 0.0f64..100.0, more in 0.0f64..100.0,
    ) {
        let protocol = Protocol::for_ops(8 * MIB);
        let enough = protocol.enough(micros, resolution);
        prop_assert!((protocol.target..=WIDEST).contains(&enough));
        prop_assert!(protocol.enough(micros, resolution + more) >= enough);
    }

    #[test]
    fn a_machine_that_is_slow_throughout_is_no_suspect(
        values in prop::collection::vec(1.0f64..2.0, 30),
        factor in 0.1f64..100.0,
    ) {
        let ratios = |factor: f64| -> Vec<f64> {
            let visits: Vec<Visit> = values.iter().map(|v| vec![factor * v]).collect();
            (0..visits.len()).filter_map(|i| slowness(&visits[..i], &visits[i])).collect()
        };
        prop_assert_eq!(is_suspect(&ratios(1.0)), is_suspect(&ratios(factor)));
    }

    #[test]
    fn every_row_ends(visits in prop::collection::vec(prop::collection::vec(1.0f64..100.0, 1..9), 60..70)) {
        let protocol = Protocol::for_ops(8 * MIB);
        prop_assert_ne!(protocol.decide(&visits, Duration::ZERO, 0.0), Decision::Continue);
    }

    #[test]
    fn equal_samples_converge(value in 1.0f64..1e6, visits in 2usize..10) {
        let protocol = Protocol::for_ops(8 * MIB);
        let visits = vec![vec![value; 8]; visits];
        prop_assert_eq!(protocol.decide(&visits, Duration::ZERO, 0.0), Decision::Converged);
    }
}
