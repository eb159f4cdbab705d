use std::sync::{Arc, LazyLock};

use latlas_predict::TableIndex;
use latlas_shared::Missing;
use latlas_shared::testing::{row, table};
use ops_catalog::arch_space::{CompiledSpace, builtin_spaces};
use ops_catalog::{Network, OpKey};
use proptest::prelude::*;

use super::*;
use crate::constraints::LatencyBound;
use crate::verdict::Decision;

/// A table of the keys of a space, without each `gap`-th row.
fn index(space: &CompiledSpace, gap: usize) -> Arc<TableIndex> {
    let mut keys: Vec<OpKey> = space.keys().iter().map(|key| key.key()).collect();
    keys.sort();
    keys.dedup();
    let rows = keys.iter().enumerate().filter(|(i, _)| gap == 0 || i % gap != gap - 1);
    let rows = rows.map(|(i, key)| row(key, 5.0 + (i * 37 % 101) as f64)).collect();
    Arc::new(TableIndex::new(table(rows)).unwrap())
}

/// The built-in spaces, compiled once.
static SPACES: LazyLock<Vec<Arc<CompiledSpace>>> =
    LazyLock::new(|| builtin_spaces().map(|builtin| Arc::new(builtin.compile())).collect());

fn gates(space: &Arc<CompiledSpace>, constraints: &Constraints, gap: usize) -> (Gate, SpaceGate) {
    let index = index(space, gap);
    let predictor = || Predictor::new(Arc::clone(&index), Missing::Error);
    let gate = Gate::new(constraints.clone(), predictor());
    (gate, SpaceGate::new(Arc::clone(space), constraints.clone(), predictor()).unwrap())
}

fn constraints() -> impl Strategy<Value = Constraints> {
    (
        prop::option::of(0.3f64..3.0),
        any::<bool>(),
        prop::option::of(10_000_000u64..400_000_000),
        prop::option::of(100_000u64..4_000_000),
        prop::option::of(8u64..20),
        prop::collection::btree_map(
            prop::sample::select(vec!["Identity".to_owned(), "MBConv6_5x5_ReLU".to_owned()]),
            0u64..5,
            0..3,
        ),
    )
        .prop_map(|(max_latency_ms, upper, max_flops, max_params, max_layers, max_per_op)| {
            let latency_bound = if upper { LatencyBound::Upper } else { LatencyBound::Estimate };
            Constraints {
                max_latency_ms,
                latency_bound,
                max_flops,
                max_params,
                max_layers,
                max_per_op,
            }
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// A genotype has the verdict and the numbers of its network, on every path.
    #[test]
    fn a_genotype_has_the_verdict_of_its_network(
        limits in constraints(),
        gap in prop::sample::select(vec![0usize, 9, 40]),
        seed in 0u64..1000,
    ) {
        for space in SPACES.iter() {
            let (gate, space_gate) = gates(space, &limits, gap);
            let mut scratch = Scratch::default();
            for letters in space.draws(seed).take(8) {
                let text = std::str::from_utf8(&letters).unwrap();
                let network = Network::new(&space.decode(text).unwrap(), space.catalog()).unwrap();
                let expected = gate.judge(&network.plan(space.catalog()).unwrap());
                prop_assert_eq!(&space_gate.explain(&letters, &mut scratch), &expected, "{}", text);
                let judged = space_gate.judge(&letters, &mut scratch);
                prop_assert_eq!(judged.latency, expected.latency);
                prop_assert_eq!(Some((judged.flops, judged.params)), expected.flops.zip(expected.params));
                prop_assert_eq!(judged.decision(), expected.verdict.decision);
                prop_assert_eq!(space_gate.decide(&letters, &mut scratch), expected.verdict.decision);
            }
        }
    }
}

/// A limit that is exactly the latency is kept, whatever the order of sums.
#[test]
fn a_latency_at_its_limit_is_accepted() {
    let space = SPACES.iter().find(|space| space.name() == "nas_bench_macro").unwrap();
    let (gate, _) = gates(space, &Constraints::default(), 0);
    let index = index(space, 0);
    let mut scratch = Scratch::default();
    for letters in space.draws(3).take(200) {
        let text = std::str::from_utf8(&letters).unwrap();
        let network = Network::new(&space.decode(text).unwrap(), space.catalog()).unwrap();
        let latency = gate.judge(&network.plan(space.catalog()).unwrap()).latency.unwrap();
        let limits =
            Constraints { max_latency_ms: Some(latency.latency / 1e3), ..Constraints::default() };
        let predictor = Predictor::new(Arc::clone(&index), Missing::Error);
        let at = SpaceGate::new(Arc::clone(space), limits, predictor).unwrap();
        assert_eq!(at.decide(&letters, &mut scratch), Decision::Accepted, "{text}");
        assert_eq!(at.judge(&letters, &mut scratch).decision(), Decision::Accepted, "{text}");
    }
}

#[test]
fn what_is_no_genotype_is_invalid_in_words() {
    let limits = Constraints { max_layers: Some(100), ..Constraints::default() };
    let (_, gate) = gates(&SPACES[0], &limits, 0);
    let mut scratch = Scratch::default();
    for letters in ["", "0", "zzzzzzzz", "\u{e9}", "000000000000000000000000000000"] {
        let judged = gate.judge(letters.as_bytes(), &mut scratch);
        assert_eq!((judged.decision(), judged.latency), (Decision::Invalid, None), "{letters}");
        assert_eq!(gate.decide(letters.as_bytes(), &mut scratch), Decision::Invalid);
        let explained = gate.explain(letters.as_bytes(), &mut scratch);
        assert_eq!(explained.verdict.decision, Decision::Invalid);
        assert_eq!(explained.verdict.reasons.len(), 1);
    }
}
