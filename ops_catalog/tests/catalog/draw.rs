//! Random networks: the same ones for a seed, covered by their space, and of many kinds.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::LazyLock;

use ops_catalog::{Family, Network, NetworkPlan, NetworkSpec, OpKey};
use proptest::prelude::*;

use crate::{assert_refused, builtin};

fn plan(spec: &NetworkSpec) -> NetworkPlan {
    Network::new(spec, builtin())
        .and_then(|network| network.plan(builtin()))
        .unwrap_or_else(|e| panic!("{e}"))
}

/// The keys of the space of each family.
static SPACES: LazyLock<BTreeMap<&str, HashSet<OpKey>>> = LazyLock::new(|| {
    let keys = |family: Family| {
        let space = builtin().space(family.name()).and_then(|def| def.resolve(builtin())).unwrap();
        (family.name(), space.entries.into_iter().map(|(key, _)| key).collect())
    };
    Family::ALL.into_iter().map(keys).collect()
});

fn family() -> impl Strategy<Value = Family> {
    proptest::sample::select(&Family::ALL[..])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_key_of_a_drawn_network_is_in_the_space_of_its_family(
        family in family(), seed in any::<u64>(),
    ) {
        for spec in family.draw(seed).take(8) {
            for step in plan(&spec).steps {
                prop_assert!(SPACES[family.name()].contains(&step.key), "{:?}: {}", spec.name, step.key);
            }
        }
    }

    #[test]
    fn a_seed_gives_the_same_networks_however_many_are_taken(
        family in family(), seed in any::<u64>(), few in 1usize..5,
    ) {
        let some: Vec<NetworkSpec> = family.draw(seed).take(few).collect();
        let more: Vec<NetworkSpec> = family.draw(seed).take(8).collect();
        prop_assert_eq!(&some[..], &more[..few]);
        let names: BTreeSet<&String> = more.iter().filter_map(|spec| spec.name.as_ref()).collect();
        prop_assert_eq!(names.len(), more.len());
    }
}

/// Accuracy figures are quoted with a seed: a change here makes them figures of other networks.
#[test]
fn the_first_network_of_a_seed_is_pinned() {
    for family in Family::ALL {
        let spec = family.draw(7).next().unwrap();
        insta::assert_snapshot!(family.name(), serde_json::to_string(&spec).unwrap());
    }
}

#[test]
fn another_seed_gives_other_networks() {
    for family in Family::ALL {
        let of = |seed| family.draw(seed).take(3).map(|spec| spec.layers).collect::<Vec<_>>();
        assert_ne!(of(1), of(2), "{family}");
    }
}

/// Number of inverted residuals or encoder layers.
fn blocks(plan: &NetworkPlan) -> usize {
    let block = |name: &str| name.starts_with("MBConv") || name.starts_with("TransformerEncoder");
    plan.steps.iter().filter(|step| block(&step.key.op)).count()
}

#[test]
fn drawn_networks_are_of_many_kinds() {
    for (family, depths, kinds, keys) in
        [(Family::Mobilenet, 8..=18, 33, 900), (Family::Transformer, 4..=14, 6, 180)]
    {
        let plans: Vec<NetworkPlan> = family.draw(1).take(200).map(|spec| plan(&spec)).collect();
        let found: BTreeSet<usize> = plans.iter().map(blocks).collect();
        assert_eq!(found, depths.collect(), "{family}: depths");
        let resolutions: BTreeSet<u32> = plans.iter().map(|plan| plan.input.h).collect();
        assert_eq!(resolutions, BTreeSet::from([128, 160, 192, 224]), "{family}");
        let ops: BTreeSet<&str> =
            plans.iter().flat_map(|p| &p.steps).map(|step| step.key.op.as_str()).collect();
        assert_eq!(ops.len(), kinds, "{family}: {ops:?}");
        let used: HashSet<&OpKey> = plans.iter().flat_map(|p| &p.steps).map(|s| &s.key).collect();
        assert!(used.len() > keys, "{family}: {} keys", used.len());
    }
}

/// A few milliseconds to a tenth of a second on one core of a desktop's CPU.
#[test]
fn drawn_networks_take_neither_too_little_nor_too_long() {
    for family in Family::ALL {
        for spec in family.draw(3).take(300) {
            let flops = plan(&spec).cost.flops;
            assert!((10_000_000..3_500_000_000).contains(&flops), "{:?}: {flops}", spec.name);
        }
    }
}

#[test]
fn families_have_names() {
    for family in Family::ALL {
        assert_eq!(family.to_string().parse(), Ok(family));
    }
    assert_refused(
        "resnet".parse::<Family>(),
        &["family resnet", "no such family", "are mobilenet, transformer"],
    );
}

/// Every op of a network over a space is a key of the space, and the same seed gives the same networks.
#[test]
fn networks_over_a_space_have_only_its_keys() {
    let catalog = builtin();
    for def in catalog.spaces() {
        let (name, space) = (&def.name, def.resolve(catalog).unwrap());
        let networks = space.networks(5, 7);
        assert_eq!(networks, space.networks(5, 7));
        for spec in &networks {
            let plan = Network::new(spec, catalog).unwrap().plan(catalog).unwrap();
            assert!(plan.steps.len() >= 4, "{name}: {spec:?}");
            for step in &plan.steps {
                assert!(
                    space.entries.iter().any(|(key, _)| *key == step.key),
                    "{name}: {}",
                    step.key
                );
            }
        }
        let count = networks.len();
        let longest = networks.iter().map(|spec| spec.layers.as_ref().unwrap().len()).max();
        println!("{name}: {} keys, {count} networks, longest {longest:?}", space.entries.len());
        assert!(count == 5 || space.entries.len() < 60, "{name}: {count} networks");
    }
}
