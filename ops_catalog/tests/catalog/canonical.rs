//! The laws of the hashes: equal graphs agree, different graphs differ, and symmetric graphs end.

use std::collections::{BTreeSet, HashMap, HashSet};

use ops_catalog::canonical::{
    Canonical, CanonicalGraph, ComputationHash, Dag, MAX_WORK, Role, Sketch, TopologyHash, Wired,
};
use ops_catalog::{Catalog, Merge, Network, NetworkSpec, Value};
use proptest::prelude::*;

use self::graphs::{branches, cells, incidences, shuffled};

#[path = "../../examples/hash_speed/graphs.rs"]
mod graphs;

/// The text of a graph in canonical order, which is what a hash is taken of.
fn canonical_text(dag: &Dag) -> Vec<u32> {
    let order = dag.canonical_order();
    assert!(order.exact);
    text_in(dag, &order.vertices)
}

fn text_in(dag: &Dag, order: &[u32]) -> Vec<u32> {
    let mut places = vec![0; dag.len()];
    for (place, &vertex) in (0..).zip(order) {
        places[vertex as usize] = place;
    }
    let mut text = Vec::new();
    for &vertex in order {
        let inputs = dag.inputs(vertex);
        text.extend([dag.label(vertex), dag.is_ordered(vertex).into(), inputs.len() as u32]);
        let start = text.len();
        text.extend(inputs.iter().map(|&input| places[input as usize]));
        if !dag.is_ordered(vertex) {
            text[start..].sort_unstable();
        }
    }
    text
}

/// The smallest text over all orders of the vertices.
fn smallest_text(dag: &Dag) -> Vec<u32> {
    fn permute(dag: &Dag, order: &mut Vec<u32>, from: usize, best: &mut Option<Vec<u32>>) {
        if from == order.len() {
            let text = text_in(dag, order);
            if best.as_ref().is_none_or(|best| text < *best) {
                *best = Some(text);
            }
            return;
        }
        for other in from..order.len() {
            order.swap(from, other);
            permute(dag, order, from + 1, best);
            order.swap(from, other);
        }
    }
    let mut best = None;
    permute(dag, &mut (0..dag.len() as u32).collect(), 0, &mut best);
    best.unwrap()
}

/// A graph with few kinds of vertices, so that many are alike.
fn random_graph(random: &mut fastrand::Rng, vertices: u32) -> Dag {
    let (labels, most) = (random.u32(1..=2), random.u32(1..=3));
    let ordered = random.bool();
    let mut dag = Dag::default();
    for vertex in 0..vertices {
        let inputs: Vec<u32> =
            (0..random.u32(0..=most).min(vertex)).map(|_| random.u32(0..vertex)).collect();
        dag.add(random.u32(0..labels), ordered && random.bool(), &inputs);
    }
    dag
}

/// A layered graph, whose layers read only the one before: much more symmetric than a random graph.
fn layered_graph(random: &mut fastrand::Rng) -> Dag {
    let mut dag = Dag::default();
    let width = random.u32(2..=4);
    for layer in 0..8 / width {
        for _ in 0..width {
            let before = |_| (layer - 1) * width;
            let inputs: Vec<u32> = (0..if layer == 0 { 0 } else { 2 })
                .map(before)
                .map(|start| start + random.u32(0..width))
                .collect();
            dag.add(layer, false, &inputs);
        }
    }
    dag
}

fn agrees_with_brute_force(graphs: impl Iterator<Item = Dag>) {
    let mut classes: HashMap<Vec<u32>, Vec<u32>> = HashMap::new();
    let mut texts: HashSet<Vec<u32>> = HashSet::new();
    let mut count = 0;
    for dag in graphs {
        count += 1;
        let canonical = canonical_text(&dag);
        let known = classes.entry(smallest_text(&dag)).or_insert_with(|| canonical.clone());
        assert_eq!(*known, canonical, "equal graphs have one text: {dag:?}");
        texts.insert(canonical);
    }
    assert_eq!(classes.len(), texts.len(), "different graphs have different texts");
    // Otherwise the graphs do not test what they should.
    assert!(classes.len() < count);
}

#[test]
fn small_graphs_agree_with_brute_force() {
    let mut random = fastrand::Rng::with_seed(1);
    agrees_with_brute_force((0..4000).map(|_| {
        let vertices = random.u32(1..=6);
        random_graph(&mut random, vertices)
    }));
}

#[test]
fn graphs_of_eight_vertices_agree_with_brute_force() {
    let mut random = fastrand::Rng::with_seed(2);
    agrees_with_brute_force((0..150).map(|_| layered_graph(&mut random)));
}

/// `test_counterexample_bipartite` of NAS-Bench-101's graph_util_test.py: the published hash takes these for one. Two
/// cycles of four vertices between the layers, and one of eight.
#[test]
fn the_published_counterexample_differs() {
    let graph = |wires: [[u32; 2]; 4]| {
        let mut dag = Dag::default();
        let input = dag.add(0, false, &[]);
        for _ in 0..4 {
            dag.add(1, false, &[input]);
        }
        for read in wires {
            dag.add(1, false, &read);
        }
        dag.add(2, false, &[5, 6, 7, 8]);
        dag
    };
    let two = graph([[1, 2], [1, 2], [3, 4], [3, 4]]);
    let one = graph([[1, 4], [1, 2], [2, 3], [3, 4]]);
    assert_ne!(canonical_text(&two), canonical_text(&one));
    let turned = graph([[3, 4], [4, 1], [1, 2], [2, 3]]);
    assert_eq!(canonical_text(&one), canonical_text(&turned));
}

proptest! {
    #[test]
    fn random_relabellings_agree(seed: u64, vertices in 1u32..60) {
        let mut random = fastrand::Rng::with_seed(seed);
        let dag = random_graph(&mut random, vertices);
        let other = shuffled(&dag, &mut random);
        prop_assert_eq!(canonical_text(&dag), canonical_text(&other));
    }

    /// Copies of one graph beside each other are the hard case: whatever is in one has an equal part in the others.
    #[test]
    fn relabellings_of_several_copies_agree(seed: u64, vertices in 1u32..8, copies in 2u32..6) {
        let mut random = fastrand::Rng::with_seed(seed);
        let part = random_graph(&mut random, vertices);
        let mut dag = Dag::default();
        for copy in 0..copies {
            for vertex in 0..vertices {
                let inputs = part.inputs(vertex).iter().map(|input| input + copy * vertices);
                let inputs: Vec<u32> = inputs.collect();
                dag.add(part.label(vertex), part.is_ordered(vertex), &inputs);
            }
        }
        let ends: Vec<u32> = (1..=copies).map(|copy| copy * vertices - 1).collect();
        dag.add(9, false, &ends);
        let other = shuffled(&dag, &mut random);
        prop_assert_eq!(canonical_text(&dag), canonical_text(&other));
    }
}

/// Layers in which each vertex reads the same neighbours of its place in the layer before, in a circle. Sometimes one
/// wire leads elsewhere.
fn circles(random: &mut fastrand::Rng) -> Dag {
    let mut dag = Dag::default();
    let width = random.u32(2..=16);
    let input = dag.add(0, false, &[]);
    for _ in 0..width {
        dag.add(1, false, &[input]);
    }
    for layer in 1..=random.u32(1..=3) {
        let steps: Vec<u32> = (0..random.u32(1..=3)).map(|_| random.u32(0..width)).collect();
        let start = dag.len() as u32 - width;
        let ordered = random.u8(0..4) == 0;
        for place in 0..width {
            let mut read: Vec<u32> =
                steps.iter().map(|step| start + (place + step) % width).collect();
            if random.u32(0..4 * width) == 0 {
                read[0] = start + random.u32(0..width);
            }
            dag.add(1 + layer, ordered, &read);
        }
    }
    let count = dag.len() as u32;
    let ends: Vec<u32> = (count - width..count).collect();
    dag.add(9, false, &ends);
    dag
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn relabellings_of_symmetric_graphs_agree(seed: u64) {
        let mut random = fastrand::Rng::with_seed(seed);
        let dag = circles(&mut random);
        let other = shuffled(&dag, &mut random);
        prop_assert_eq!(canonical_text(&dag), canonical_text(&other));
    }
}

/// Points and lines of a projective plane: every point is like every other, and refinement alone separates nothing.
#[test]
fn the_most_symmetric_graphs_end_within_the_bound() {
    let mut random = fastrand::Rng::with_seed(3);
    for prime in [2, 3, 5, 7] {
        let dag = incidences(prime);
        assert_eq!(canonical_text(&dag), canonical_text(&shuffled(&dag, &mut random)), "{prime}");
    }
    for dag in [branches(5000, 1), branches(1000, 5)] {
        assert_eq!(canonical_text(&dag), canonical_text(&shuffled(&dag, &mut random)));
    }
}

#[test]
fn a_search_that_ends_at_its_bound_says_so() {
    let dag = incidences(5);
    let order = dag.canonical_order_within(MAX_WORK / 10_000);
    assert!(!order.exact);
    // The order is complete all the same, so the hash of it is that of no other graph.
    let vertices: BTreeSet<u32> = order.vertices.iter().copied().collect();
    assert_eq!(vertices.len(), dag.len());
    assert!(order.vertices.iter().enumerate().all(|(place, &vertex)| {
        let before = &order.vertices[..place];
        dag.inputs(vertex).iter().all(|input| before.contains(input))
    }));
}

/// A random architecture of ops that are added, and the same with identities in its wires and zeros in its sums.
fn random_spellings(random: &mut fastrand::Rng) -> [ComputationHash; 2] {
    let (mut plain, mut padded) = (Sketch::default(), Sketch::default());
    let (mut labels, mut padded_labels) = (Vec::new(), Vec::new());
    let mut values = vec![(Value::Input, Value::Input)];
    const IDENTITY: u32 = 3;
    const ZEROS: u32 = 4;
    for _ in 0..random.usize(1..12) {
        let (mut inputs, mut padded_inputs) = (Vec::new(), Vec::new());
        for _ in 0..random.usize(1..4) {
            let (input, mut other) = values[random.usize(0..values.len())];
            inputs.push(input);
            if random.bool() {
                other = padded.add(Role::Identity, Merge::Add, &[other]);
                padded_labels.push(IDENTITY);
            }
            padded_inputs.push(other);
            if random.bool() {
                padded_inputs.push(padded.add(Role::Zero, Merge::Add, &[other]));
                padded_labels.push(ZEROS);
            }
        }
        random.shuffle(&mut padded_inputs);
        let label = random.u32(0..IDENTITY);
        labels.push(label);
        padded_labels.push(label);
        let node = plain.add(Role::Op, Merge::Add, &inputs);
        values.push((node, padded.add(Role::Op, Merge::Add, &padded_inputs)));
    }
    let hash = |sketch: &Sketch, labels: &[u32], output: Value| {
        let wired = sketch.computation(labels, output, ZEROS);
        let names = ["a", "b", "c", "identity", "zeros"];
        ComputationHash::of(&wired, &wired.dag.canonical_order(), "", &names)
    };
    let &(output, padded_output) = values.last().unwrap();
    [hash(&plain, &labels, output), hash(&padded, &padded_labels, padded_output)]
}

proptest! {
    #[test]
    fn identities_and_zeros_change_no_computation(seed: u64) {
        let [plain, padded] = random_spellings(&mut fastrand::Rng::with_seed(seed));
        prop_assert_eq!(plain, padded);
    }
}

const SKIP: u32 = 1;
const CONV: u32 = 2;
const POOL: u32 = 4;

/// The hash of a cell of NAS-Bench-201 whose other edges are `none`.
fn cell(edges: &[(usize, u32)]) -> String {
    let mut ops = [0; 6];
    for &(edge, op) in edges {
        ops[edge] = op;
    }
    cells::computation(ops).to_string()
}

#[test]
fn the_cells_of_nas_bench_201_are_5425_computations() {
    let hashes: HashSet<ComputationHash> = cells::all().map(cells::computation).collect();
    assert_eq!(hashes.len(), 5425);
}

/// Edges of a cell: 0 to 1, 0 to 2, 1 to 2, 0 to 3, 1 to 3, 2 to 3.
#[test]
fn cells_are_told_apart_by_what_they_compute() {
    let nothing = cell(&[]);
    assert_eq!(nothing, cell(&[(0, CONV), (1, CONV), (2, POOL)]), "nothing reaches the output");
    assert_eq!(nothing, cell(&[(4, CONV), (5, SKIP)]), "nothing comes from the input");
    let once = cell(&[(3, SKIP)]);
    let twice = cell(&[(3, SKIP), (1, SKIP), (5, SKIP)]);
    let thrice = cell(&[(3, SKIP), (1, SKIP), (5, SKIP), (0, SKIP), (4, SKIP)]);
    assert_eq!(once, cell(&[(1, SKIP), (5, SKIP)]));
    assert_eq!(BTreeSet::from([&nothing, &once, &twice, &thrice]).len(), 4);
    let shared = cell(&[(0, CONV), (4, SKIP), (2, SKIP), (5, SKIP)]);
    let apart = cell(&[(3, CONV), (1, CONV), (5, SKIP)]);
    assert_ne!(shared, apart, "one convolution that is read twice is not two");
}

fn of(nodes: &str) -> Canonical {
    let output = nodes.matches("op:").count() - 1;
    let text = format!(
        "{{input: {{n: 1, c: 8, h: 8, w: 8}}, output: {output}, nodes: [{}]}}",
        nodes.replace("SAME", "c_out: 8, stride: 1")
    );
    let catalog = Catalog::builtin();
    let network = Network::new(&NetworkSpec::from_yaml(&text).unwrap(), catalog).unwrap();
    Canonical::of(&network, catalog).unwrap()
}

/// Which of the three hashes two networks share, in the order of [`ArchHashes`].
fn shared(one: &str, other: &str) -> [bool; 3] {
    let (one, other) = (of(one).hashes, of(other).hashes);
    [
        one.topology == other.topology,
        one.shaped == other.shaped,
        one.computation == other.computation,
    ]
}

#[test]
fn the_three_hashes_see_different_things() {
    let conv = "{op: Conv3x3, SAME, inputs: [-1]}";
    assert_eq!(
        shared(conv, "{op: Conv3x3, c_out: 16, stride: 2, inputs: [-1]}"),
        [true, false, false],
        "sizes"
    );
    let spliced = "{op: Conv3x3, SAME, inputs: [-1]}, {op: Identity, SAME, inputs: [0]}";
    assert_eq!(shared(conv, spliced), [false, false, true], "an identity");
    let one = "{op: Conv3x3, SAME, inputs: [-1]}, {op: Conv1x1, SAME, inputs: [-1]},
               {op: ReLU, SAME, inputs: [0, 1, -1]}";
    let other = "{op: Conv1x1, SAME, inputs: [-1]}, {op: Conv3x3, SAME, inputs: [-1]},
                 {op: ReLU, SAME, inputs: [-1, 0, 1]}";
    assert_eq!(shared(one, other), [true; 3], "the order of nodes and of added inputs");
    let nested = "{op: Conv3x3, SAME, inputs: [-1]}, {op: Conv1x1, SAME, inputs: [-1]},
                  {op: Identity, SAME, inputs: [0, -1]}, {op: ReLU, SAME, inputs: [2, 1]}";
    assert_eq!(shared(one, nested), [false, false, true], "a sum of a sum");
    let zero = "{op: Conv3x3, SAME, inputs: [-1]}, {op: Zero, SAME, inputs: [-1]},
                {op: Conv1x1, SAME, inputs: [1]}, {op: Identity, SAME, inputs: [0, 2]}";
    assert_eq!(shared(conv, zero), [false, false, true], "what does not depend on the input");
}

#[test]
fn concatenations_keep_their_order_and_zeros() {
    let concat = |inputs: &str, op: &str| {
        format!(
            "{{op: Conv3x3, SAME, inputs: [-1]}}, {{op: Zero, SAME, inputs: [-1]}},
             {{op: {op}, c_out: 16, stride: 1, inputs: {inputs}, merge: concat}}"
        )
    };
    let one = of(&concat("[0, 1]", "ReLU")).hashes;
    let other = of(&concat("[1, 0]", "ReLU")).hashes;
    assert_ne!(one.topology, other.topology);
    assert_ne!(one.computation, other.computation);
}

#[test]
fn products_with_zeros_are_zeros_and_other_constants_stay() {
    let product = |gate: &str| {
        format!(
            "{{op: Conv3x3, SAME, inputs: [-1]}}, {{op: Zero, SAME, inputs: [-1]}},
             {{op: {gate}, SAME, inputs: [1]}},
             {{op: Identity, SAME, inputs: [0, 2], merge: mul}}"
        )
    };
    let nothing = of("{op: Zero, SAME, inputs: [-1]}").hashes.computation;
    assert_eq!(of(&product("Identity")).hashes.computation, nothing);
    let half = of(&product("Sigmoid")).hashes.computation;
    assert_ne!(half, nothing);
    assert_ne!(half, of("{op: Conv3x3, SAME, inputs: [-1]}").hashes.computation);
}

/// The graph is a network with the same hashes, and the same graph again.
#[test]
fn the_canonical_graph_is_the_network() {
    let catalog = Catalog::builtin();
    for spec in catalog.networks() {
        let network = Network::new(spec, catalog).unwrap();
        let canonical = Canonical::of(&network, catalog).unwrap();
        let again = Network::new(&canonical.graph.spec(), catalog).unwrap();
        assert_eq!(Canonical::of(&again, catalog).unwrap(), canonical, "{:?}", spec.name);
        let text = serde_json::to_string(&canonical.graph).unwrap();
        assert_eq!(serde_json::from_str::<CanonicalGraph>(&text).unwrap(), canonical.graph);
    }
}

#[test]
fn a_network_that_fits_nowhere_has_no_hash() {
    let text = "{input: {n: 1, c: 8, h: 8, w: 8}, output: 1, nodes: [
        {op: Conv3x3, c_out: 16, stride: 1, inputs: [-1]}, {op: ReLU, c_out: 16, stride: 1, inputs: [0, -1]}]}";
    let catalog = Catalog::builtin();
    let network = Network::new(&NetworkSpec::from_yaml(text).unwrap(), catalog).unwrap();
    let problem = Canonical::of(&network, catalog).unwrap_err().to_string();
    assert!(problem.starts_with("nodes[1], inputs: are added, but differ"), "{problem}");
}

/// The meaning of a hash is fixed: another meaning needs another version in its prefix.
#[test]
fn hashes_stay_what_they_are() {
    let hashes = of("{op: Conv3x3, SAME, inputs: [-1]}, {op: Zero, SAME, inputs: [0]},
                     {op: Identity, SAME, inputs: [0, 1, -1]}")
    .hashes;
    // Its order is the outcome of a search, whose rules are a part of the meaning too.
    let dag = incidences(3);
    let (order, nodes) = (dag.canonical_order(), vec![None; dag.len()]);
    let plane = TopologyHash::of(&Wired { dag, nodes }, &order, "", &[""]);
    insta::assert_json_snapshot!((&hashes, plane));
    let text = hashes.topology.to_string();
    assert_eq!(text.parse(), Ok(hashes.topology));
    for wrong in [&text[..text.len() - 1], &text.replace("topology", "shaped"), "", "topology-1:"] {
        assert!(wrong.parse::<TopologyHash>().is_err(), "{wrong}");
    }
}
