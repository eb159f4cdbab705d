//! Laws of every built-in space, on random genotypes.

use std::collections::HashSet;

use ops_catalog::arch_space::{CompiledSpace, builtin_spaces};
use ops_catalog::{Merge, Network, NetworkPlan, NetworkSpec};

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

/// The same network with its nodes in another order, and what is added too.
fn shuffled(spec: &NetworkSpec, seed: u64) -> NetworkSpec {
    let mut rng = fastrand::Rng::with_seed(seed);
    let nodes = spec.nodes.clone().unwrap();
    let mut order: Vec<usize> = (0..nodes.len()).collect();
    rng.shuffle(&mut order);
    let mut place = vec![0i64; nodes.len()];
    order.iter().zip(0..).for_each(|(&old, new)| place[old] = new);
    let moved = |&old: &usize| {
        let mut node = nodes[old].clone();
        let moved = |input: i64| usize::try_from(input).map_or(-1, |input| place[input]);
        let mut inputs: Vec<i64> = node.inputs.unwrap().into_iter().map(moved).collect();
        if node.merge == Some(Merge::Add) {
            rng.shuffle(&mut inputs);
        }
        node.inputs = Some(inputs);
        node
    };
    let nodes = order.iter().map(moved).collect();
    let output = spec.output.map(|output| place[usize::try_from(output).unwrap()]);
    NetworkSpec { nodes: Some(nodes), output, id: None, ..spec.clone() }
}

#[test]
fn the_order_in_which_a_network_is_written_makes_no_difference() {
    for name in ["nas_bench_201", "darts", "mobilenet_v3_fpn"] {
        let space = space(name);
        for (seed, letters) in (0..).zip(space.draws(4).take(8)) {
            let text = std::str::from_utf8(&letters).unwrap();
            let spec = shuffled(&space.decode(text).unwrap(), seed);
            let network = Network::new(&spec, space.catalog()).unwrap();
            assert_eq!(space.encode(&network).as_deref(), Ok(text), "{name}");
        }
    }
}

/// Damaged definitions and genotypes are refused or work; nothing panics.
#[test]
fn damage_does_no_harm() {
    let mut rng = fastrand::Rng::with_seed(5);
    for builtin in builtin_spaces().filter(|space| space.name != "layer_chain") {
        let lines: Vec<&str> = builtin.text.lines().collect();
        for _ in 0..40 {
            let mut damaged = lines.clone();
            let (a, b) = (rng.usize(..lines.len()), rng.usize(..lines.len()));
            match rng.u8(..3) {
                0 => drop(damaged.remove(a)),
                1 => damaged.swap(a, b),
                _ => damaged.insert(a, lines[b]),
            }
            let text = damaged.join("\n");
            let number = rng.u32(..40).to_string();
            let text =
                if rng.bool() { text.replacen('2', &number, 1 + rng.usize(..4)) } else { text };
            if let Err(error) = CompiledSpace::from_yaml(&text, crate::builtin()) {
                assert!(!error.to_string().contains('\n'), "{error}");
            }
        }
        let space = builtin.compile();
        let letters = space.draws(5).next().unwrap();
        for _ in 0..60 {
            let mut damaged = letters.clone();
            let at = rng.usize(..damaged.len());
            damaged[at] = *b"0123456789az.A-\xc3".get(rng.usize(..16)).unwrap();
            let text = String::from_utf8_lossy(&damaged).into_owned();
            let walks = space.walk(text.as_bytes(), |_| {}).is_ok();
            assert_eq!(space.decode(&text).is_ok(), walks, "{text}");
            assert_eq!(space.totals(text.as_bytes()).is_ok(), walks, "{text}");
        }
    }
}
