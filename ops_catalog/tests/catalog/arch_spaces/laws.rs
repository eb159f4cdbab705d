//! Laws of every built-in space, on random genotypes.

use std::collections::HashSet;

use ops_catalog::arch_space::{CompiledSpace, builtin_spaces};
use ops_catalog::{Network, NetworkPlan, NetworkSpec};

use super::space;

fn plan(spec: &NetworkSpec, space: &CompiledSpace) -> NetworkPlan {
    Network::new(spec, space.catalog()).unwrap().plan(space.catalog()).unwrap()
}

/// The tables say of a genotype what the plan of its network says.
pub(super) fn walk_is_plan(space: &CompiledSpace, letters: &[u8]) {
    let text = std::str::from_utf8(letters).unwrap();
    let plan = plan(&space.decode(text).unwrap(), space);
    let totals = space.totals(letters).unwrap();
    assert_eq!(totals.cost, plan.cost, "{text}");
    let merges = plan.steps.iter().filter(|step| step.merge.is_some()).count();
    assert_eq!(totals.merges, merges as u64, "{text}");
    assert_eq!(totals.layers, (plan.steps.len() - merges) as u64, "{text}");
    let mut ops = vec![0; space.ops().len()];
    for step in plan.steps.iter().filter(|step| step.merge.is_none()) {
        ops[space.ops().iter().position(|op| op.name() == step.op.name()).unwrap()] += 1;
    }
    assert_eq!(totals.ops, ops, "{text}");
    let mut keys = vec![];
    space.running_keys(letters, &mut keys).unwrap();
    let keys: Vec<_> = keys.iter().map(|&key| space.keys()[key as usize].key()).collect();
    let planned: Vec<_> = plan.steps.iter().map(|step| step.key.clone()).collect();
    assert_eq!(keys, planned, "{text}");
}

#[test]
fn tables_say_of_a_genotype_what_the_plan_of_its_network_says() {
    for builtin in builtin_spaces() {
        let space = builtin.compile();
        for letters in space.draws(1).take(100) {
            walk_is_plan(&space, &letters);
        }
    }
}

#[test]
fn a_genotype_is_the_one_of_its_network() {
    for builtin in builtin_spaces() {
        let space = builtin.compile();
        for letters in space.draws(2).take(30) {
            let text = std::str::from_utf8(&letters).unwrap();
            let spec = space.decode(text).unwrap();
            let network = Network::new(&spec, space.catalog()).unwrap();
            assert_eq!(space.encode(&network).as_deref(), Ok(text), "{}", builtin.name);
            assert_eq!(space.decode(&space.genotype(&letters)).unwrap(), spec);
        }
    }
}

#[test]
fn every_built_in_space_is_what_it_says() {
    for builtin in builtin_spaces() {
        let space = builtin.compile();
        assert_eq!(space.name(), builtin.name);
        assert!(!space.doc().is_empty(), "{}", builtin.name);
    }
}

#[test]
fn genotypes_are_counted_and_listed() {
    let space = space("nas_bench_macro");
    assert_eq!(space.size(), 6_561);
    let mut letters = space.at(0).unwrap();
    assert_eq!(letters, b"00000000");
    let mut all = HashSet::from([letters.clone()]);
    let mut number = 0;
    while space.next(&mut letters) {
        number += 1;
        assert_eq!(space.at(number).as_deref(), Some(letters.as_slice()));
        all.insert(letters.clone());
    }
    assert_eq!((all.len(), letters.as_slice()), (6_561, b"22222222".as_slice()));
    assert_eq!(space.at(6_561), None);
}

/// Params in the form as trained: two parameters of a batch norm in place of each folded bias.
fn trained_params(plan: &NetworkPlan) -> u64 {
    let folded =
        plan.steps.iter().flat_map(|step| &step.plan.steps).filter(|step| step.folded_norm);
    plan.cost.params + folded.map(|step| u64::from(step.outputs[0].channels())).sum::<u64>()
}

/// The figures of <https://github.com/xiusu/NAS-Bench-Macro>.
#[test]
fn nas_bench_macro_has_the_published_figures() {
    let space = space("nas_bench_macro");
    for (letters, params, flops) in [
        ("02012100", 890_666, 47_327_744),
        ("11111221", 2_181_386, 65_012_224),
        ("00011110", 1_118_378, 31_390_208),
    ] {
        let plan = plan(&space.decode(letters).unwrap(), &space);
        assert_eq!((trained_params(&plan), plan.cost.flops), (params, flops), "{letters}");
    }
}

/// The largest cell of NAS-Bench-201 (arXiv 2001.00326), and DARTS_V2 as the code of <https://github.com/quark0/darts>
/// counts it (3.349342 M).
#[test]
fn cells_have_the_published_figures() {
    let largest = space("nas_bench_201");
    let largest = plan(&largest.decode("333333").unwrap(), &largest);
    assert_eq!((trained_params(&largest), largest.cost.flops), (1_531_546, 220_119_680));
    let darts = space("darts");
    let v2 = plan(&darts.decode("3303302312500202102402").unwrap(), &darts);
    assert_eq!(trained_params(&v2), 3_349_342);
}
