use ops_catalog::{Catalog, SpaceDef};
use proptest::prelude::*;

use super::*;
use latlas_shared::testing::{row, table};

fn space(text: &str) -> Space {
    SpaceDef::from_yaml(text).unwrap().resolve(Catalog::builtin()).unwrap()
}

fn convs() -> Space {
    space(
        "name: convs\ngrids: [{ops: [Conv3x3, Conv1x1], resolution: [14, 28], c_in: [16, 32, 64], c_out: [16, 32, 64]}]",
    )
}

/// Nearly proportional to the work.
fn plausible(key: &OpKey) -> f64 {
    let op = Catalog::builtin().op(&key.op).unwrap();
    3.0 + work(op, key) / 1e4
}

fn index_of(keys: &[OpKey]) -> TableIndex {
    TableIndex::new(table(keys.iter().map(|key| row(key, plausible(key))).collect())).unwrap()
}

/// The keys of a space in the order in which they would be measured, and the error before each batch.
fn whole_order(space: &Space, size: usize) -> (Vec<OpKey>, Vec<f64>) {
    let candidates = candidates(space);
    let (mut keys, mut errors) = (Vec::new(), Vec::new());
    loop {
        let batch = next_batch(&index_of(&keys), &candidates, size);
        errors.push(batch.expected_error);
        if batch.keys.is_empty() {
            return (keys, errors);
        }
        keys.extend(batch.keys);
    }
}

#[test]
fn every_row_comes_once_and_the_error_falls_to_nothing() {
    let space = convs();
    let (mut keys, errors) = whole_order(&space, 6);
    assert_eq!(errors[0], 1.0);
    assert_eq!(*errors.last().unwrap(), 0.0);
    assert!(errors.windows(2).all(|pair| pair[1] <= pair[0]), "{errors:?}");
    // The remaining rows are then within the measured range.
    assert!(errors[errors.len() - 2] < 0.2, "{errors:?}");
    keys.sort();
    let mut all: Vec<OpKey> = space.entries.into_iter().map(|(key, _)| key).collect();
    all.sort();
    assert_eq!(keys, all);
}

#[test]
fn the_first_batch_has_rows_of_several_ops_and_large_ones() {
    let batch = next_batch(&index_of(&[]), &candidates(&convs()), 4);
    let of = |name: &str| batch.keys.iter().filter(|key| key.op == name).count();
    assert!(of("Conv3x3") > 0 && of("Conv1x1") > 0, "{:?}", batch.keys);
    assert_eq!(batch.keys[0].to_string(), "Conv3x3:n1-h28-w28-i64-o64-s1");
}

#[test]
fn rows_that_networks_use_come_first() {
    let mobilenet = Catalog::builtin().space("mobilenet").unwrap();
    let candidates = candidates(&mobilenet.resolve(Catalog::builtin()).unwrap());
    let used = candidates.rows.iter().filter(|candidate| candidate.uses >= 1.0).count();
    assert!(used > 100 && used < candidates.rows.len(), "{used} of {}", candidates.rows.len());
    let batch = next_batch(&index_of(&[]), &candidates, 20);
    for key in &batch.keys {
        let candidate = candidates.rows.iter().find(|candidate| candidate.key == *key).unwrap();
        assert!(candidate.uses >= 1.0, "{key}");
    }
}

/// Early on, the order set in advance has at least one row of every op that networks use much, with large rows first;
/// at its end it has all rows.
#[test]
fn the_order_in_advance_is_of_every_row_and_spreads_over_the_ops() {
    let mobilenet = Catalog::builtin().space("mobilenet").unwrap();
    let candidates = candidates(&mobilenet.resolve(Catalog::builtin()).unwrap());
    let order = order_in_advance(&candidates);
    let mut uses: HashMap<&str, f64> = HashMap::new();
    for row in order.iter().filter(|row| row.uses >= 1.0) {
        *uses.entry(&row.key.op).or_default() += row.uses;
    }
    // Used by more than one fifth of the drawn networks.
    uses.retain(|_, uses| *uses >= NETWORKS as f64 / 5.0);
    let early: Vec<&str> = order[..60].iter().map(|row| row.key.op.as_str()).collect();
    for op in uses.keys() {
        assert!(early.contains(op), "{op}: {early:?}");
    }
    let mut keys: Vec<&OpKey> = order.iter().map(|row| &row.key).collect();
    let mut all: Vec<&OpKey> = candidates.rows.iter().map(|row| &row.key).collect();
    keys.sort();
    all.sort();
    assert_eq!(keys, all);
    let convs = self::candidates(&convs());
    assert_eq!(order_in_advance(&convs)[0].key.to_string(), "Conv3x3:n1-h28-w28-i64-o64-s1");
}

/// A row without an estimate makes a whole network unpredictable, however short its own latency is.
#[test]
fn what_cannot_be_estimated_comes_before_what_can() {
    let tiny: OpKey = "GlobalAvgPool:n1-h4-w4-i16-o16-s1".parse().unwrap();
    let mut space = convs();
    let measured: Vec<OpKey> =
        space.entries.iter().map(|(key, _)| key.clone()).step_by(2).collect();
    let op = Arc::clone(Catalog::builtin().op("GlobalAvgPool").unwrap());
    space.entries.push((tiny.clone(), op));
    let batch = next_batch(&index_of(&measured), &candidates(&space), 3);
    assert!(batch.keys.contains(&tiny), "{:?}", batch.keys);
}

#[test]
fn a_row_that_failed_is_not_measured_again() {
    let space = convs();
    let key = space.entries[0].0.clone();
    let mut failed = row(&key, 1.0);
    failed.latency_micros = None;
    failed.curve.clear();
    failed.status = latlas_shared::RowStatus::Failed;
    failed.reason = Some("out of memory".into());
    let index = TableIndex::new(table(vec![failed])).unwrap();
    let batch = next_batch(&index, &candidates(&space), 1000);
    assert_eq!(batch.keys.len(), space.entries.len() - 1);
    assert!(!batch.keys.contains(&key));
}

#[test]
fn measuring_stops_at_the_target_or_when_it_does_not_help() {
    let mut stop = Stop::new(0.03, 2);
    assert_eq!(stop.after(0.5), None);
    assert_eq!(stop.after(0.49), None);
    assert!(stop.after(0.48).unwrap().contains("the last 2 batches"));
    let mut stop = Stop::new(0.03, 2);
    for error in [1.0, 1.0, 1.0, 1.0, 0.5, 0.4, 0.4, 0.3, 0.3] {
        assert_eq!(stop.after(error), None);
    }
    assert!(stop.after(0.03).unwrap().contains("at most 3.0%"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn the_order_of_the_candidates_has_no_say(seed: u64, size in 1usize..20) {
        let candidates = candidates(&convs());
        let mut shuffled = candidates.clone();
        shuffle(&mut shuffled.rows, seed);
        let index = index_of(&[]);
        let (batch, again) = (next_batch(&index, &candidates, size), next_batch(&index, &shuffled, size));
        prop_assert_eq!(batch.keys, again.keys);
    }
}

/// Any permutation is suitable.
fn shuffle<T>(values: &mut [T], mut seed: u64) {
    for i in (1..values.len()).rev() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        values.swap(i, (seed >> 33) as usize % (i + 1));
    }
}
