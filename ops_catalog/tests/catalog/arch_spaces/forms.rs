//! What a definition can say, on small spaces.

use ops_catalog::arch_space::{ArchSpaceDef, CompiledSpace, Restriction, StateId};
use ops_catalog::{LayerSpec, Network, NetworkSpec, text};

use super::laws::walk_is_plan;
use crate::builtin;

fn compiled(yaml: &str) -> CompiledSpace {
    CompiledSpace::from_yaml(yaml, builtin()).unwrap_or_else(|e| panic!("{e}"))
}

/// A space over maps of 8 channels and 16 pixels.
fn small(rest: &str) -> CompiledSpace {
    compiled(&format!("name: small\nversion: 3\ninput: {{n: 1, c: 8, h: 16, w: 16}}\n{rest}"))
}

/// Every genotype, each checked against the plan of its network.
fn all(space: &CompiledSpace) -> Vec<String> {
    let mut letters = space.at(0).unwrap();
    let mut all = vec![];
    loop {
        walk_is_plan(space, &letters);
        let text = String::from_utf8(letters.clone()).unwrap();
        let network = Network::new(&space.decode(&text).unwrap(), space.catalog()).unwrap();
        assert_eq!(space.encode(&network).as_deref(), Ok(text.as_str()));
        all.push(text);
        if !space.next(&mut letters) {
            assert_eq!(all.len() as u128, space.size());
            return all;
        }
    }
}

fn layers(spec: &NetworkSpec) -> Vec<String> {
    let layers = spec.layers.as_ref().unwrap().iter();
    let layer = layers.map(|layer| match layer {
        LayerSpec::Full(node) => format!(
            "{} {}/{}",
            node.op.as_deref().unwrap(),
            node.c_out.unwrap(),
            node.stride.unwrap()
        ),
        LayerSpec::Name(name) => name.clone(),
    });
    layer.collect()
}

#[test]
fn a_stage_has_as_many_blocks_as_its_genes_say() {
    let space = small(
        "body: [{depth: [0, 1, 3], c_out: 16, stride: 2, op: Conv<k>x<k>, choices: {k: [1, 3]}},
                {op: ReLU, c_out: c_in}]",
    );
    let genotypes = all(&space);
    assert_eq!(genotypes.len(), 1 + 2 + 8);
    assert_eq!([&genotypes[0], &genotypes[10]], ["000", "..."]);
    assert_eq!(layers(&space.decode("...").unwrap()), ["ReLU 8/1"]);
    assert_eq!(layers(&space.decode("1..").unwrap()), ["Conv3x3 16/2", "ReLU 16/1"]);
    let three = ["Conv1x1 16/2", "Conv3x3 16/1", "Conv1x1 16/1", "ReLU 16/1"];
    assert_eq!(layers(&space.decode("010").unwrap()), three);
}

#[test]
fn a_choice_decides_the_depth_and_so_which_genes_are_inactive() {
    let space = small(
        "choices: {deep: [1, 1.5, 2]}
body: [{depth: 2*deep, c_out: c_in, op: Conv<k>x<k>, choices: {k: [3, 5]}}]",
    );
    assert_eq!(all(&space).len(), 4 + 8 + 16);
    assert_eq!(layers(&space.decode("001..").unwrap()), ["Conv3x3 8/1", "Conv5x5 8/1"]);
    let error = space.decode("0010.").unwrap_err().to_string();
    assert!(error.contains("gene 4 (body[0] block 3: 0)"), "{error}");
    assert!(error.contains("no part of the network here: `.` belongs here"), "{error}");
    let error = space.decode("2010.").unwrap_err().to_string();
    assert!(error.contains("gene 5 (body[0] block 4: .)"), "{error}");
}

#[test]
fn options_can_be_several_layers_or_none() {
    let space = small(
        "body:
  - options:
      - {layers: []}
      - {layers: [{op: Conv1x1, c_out: 2*c_in}, {op: Conv3x3, c_out: 8}]}
      - {op: Conv3x3, c_out: 2*wide, choices: {wide: [4, 8]}, stride: 2}
    c_out: c_in
  - {op: ReLU, c_out: c_in}",
    );
    assert_eq!(all(&space), ["0", "1", "2", "3"]);
    assert_eq!(layers(&space.decode("0").unwrap()), ["ReLU 8/1"]);
    let two = ["Conv1x1 16/1", "Conv3x3 8/1", "ReLU 8/1"];
    assert_eq!(layers(&space.decode("1").unwrap()), two);
    assert_eq!(layers(&space.decode("3").unwrap()), ["Conv3x3 16/2", "ReLU 16/1"]);
    assert_eq!(space.genes()[0].options, ["nothing", "Conv1x1 + Conv3x3", "wide 4", "wide 8"]);
}

/// The seed's macro-search: connections between blocks.
#[test]
fn optional_edges_join_earlier_values() {
    let space = small(
        "body:
  - {id: a, op: Conv3x3, c_out: 8}
  - {id: b, op: Conv<k>x<k>, choices: {k: [1, 3]}, c_out: 16, stride: 2}
  - {op: Conv1x1, c_out: 16}
  - {id: d, join: [a, b], through: Conv1x1}
  - {id: c, op: Conv3x3, c_out: 16}
  - {join: [d, input], through: Conv1x1}
  - {op: ReLU, c_out: c_in}",
    );
    assert_eq!(all(&space).len(), 2 * 16);
    let names: Vec<&str> = space.genes().iter().map(|gene| gene.name.as_str()).collect();
    let edges = ["edge a to d", "edge b to d", "edge d to body[5]", "edge input to body[5]"];
    assert_eq!(names, ["b", edges[0], edges[1], edges[2], edges[3]]);
    // Both edges into d: the one from a goes through an op with the stride of what lies between.
    let plan = |letters: &str| {
        let network = Network::new(&space.decode(letters).unwrap(), builtin()).unwrap();
        let plan = network.plan(builtin()).unwrap();
        plan.steps.iter().map(|step| step.key.to_string()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        plan("01100"),
        "Conv3x3:n1-h16-w16-i8-o8-s1 Conv1x1:n1-h16-w16-i8-o16-s2 Conv1x1:n1-h8-w8-i16-o16-s1 \
         Conv1x1:n1-h16-w16-i8-o16-s2 Add:n1-h8-w8-i32-o16-s1 Add:n1-h8-w8-i32-o16-s1 \
         Identity:n1-h8-w8-i16-o16-s1 Conv3x3:n1-h8-w8-i16-o16-s1 ReLU:n1-h8-w8-i16-o16-s1"
    );
    assert_eq!(plan("00000").matches("Add").count(), 0);
}

/// The seed's micro-search: the ops inside a cell.
#[test]
fn cells_share_their_genes_and_depend_on_choices() {
    let space = small(
        "choices: {width: [8, 16], kernel: [3, 5]}
cells:
  c: {nodes: 2, edges: all, ops: [Conv1x1, DepthwiseConv<kernel>x<kernel>], output: last}
  d: {nodes: 2, edges: 1, ops: [Conv3x3, Conv1x1], output: concat}
body:
  - {op: Conv<kernel>x<kernel>, c_out: width}
  - {cell: c, c_out: width, repeat: 2}
  - {cell: d, c_out: 4, stride: 2}
  - {cell: c, c_out: 8}
  - {op: ReLU, c_out: c_in}",
    );
    // Three edges of c, two of d, and what the second node of d reads.
    assert_eq!(all(&space).len(), 2 * 2 * 8 * 4 * 2);
}

#[test]
fn a_cell_can_have_one_op_on_all_edges() {
    let space = small(
        "cells:
  c: {inputs: 2, nodes: 3, edges: 2, ops: [Conv3x3], output: concat}
  d: {nodes: 2, edges: all, ops: [Conv3x3], output: last}
body:
  - {id: a, op: Conv1x1, c_out: 8}
  - {id: b, op: Conv3x3, c_out: 8}
  - {cell: c, c_out: 8}
  - {cell: d, c_out: 24}
  - {cell: c, c_out: 24, inputs: [a, b], stride: 2}
  - {op: ReLU, c_out: c_in}",
    );
    assert!(space.genes().len() == 2, "{:?}", space.genes());
}

#[test]
fn ops_of_the_space_come_with_its_networks() {
    let space = small(
        "ops:
  - {name: Mine, nodes: [{apply: relu}]}
  - {name: Other, nodes: [{apply: tanh}]}
body: [{op: <op>, c_out: c_in, choices: {op: [Mine, Other, ReLU]}}]",
    );
    assert_eq!(all(&space), ["0", "1", "2"]);
    let own = |letters: &str| {
        let ops = space.decode(letters).unwrap().ops.unwrap_or_default();
        ops.into_iter().map(|op| op.name).collect::<Vec<_>>()
    };
    assert_eq!([own("0"), own("1"), own("2")], [vec!["Mine"], vec!["Other"], vec![]]);
    // A line of output says all that is needed to read it.
    let line = serde_json::to_string(&space.decode("0").unwrap()).unwrap();
    let read = NetworkSpec::from_json(&line).unwrap();
    assert!(Network::new(&read, builtin()).is_ok());
    assert_eq!(read.id.unwrap().to_string(), "\"small@3:0\"");
}

#[test]
fn what_is_not_possible_is_no_genotype() {
    // Pools halve a map of 16 pixels four times, and a map of one pixel not at all.
    let space =
        small("body: [{depth: 6, c_out: c_in, options: [Identity, {op: MaxPool, stride: 2}]}]");
    let at_most_four = |n: u64| (0..=4).map(|k| choose(n, k)).sum::<u64>();
    assert_eq!(space.size(), u128::from(at_most_four(6)));
    all(&space);
    let error = space.decode("111110").unwrap_err().to_string();
    assert!(error.contains("gene 5 (body[0] block 5: 1)"), "{error}");
    assert!(error.contains("MaxPool:n1-h1-w1-i8-o8-s2"), "{error}");
    assert!(space.walk(b"111110", |_| {}).is_err());
}

fn choose(n: u64, k: u64) -> u64 {
    (0..k).fold(1, |product, i| product * (n - i) / (i + 1))
}

#[test]
fn an_option_that_leads_nowhere_is_no_choice() {
    // The last pool needs a map of two pixels, so at most three of the others are pools.
    let space = small(
        "body: [{depth: 4, c_out: 8, options: [ReLU, {op: MaxPool, stride: 2}]},
                {op: MaxPool, c_out: 8, stride: 2}]",
    );
    assert_eq!(space.size(), 15);
    assert!(space.step(3, walk_to(&space, b"111"), b'1').is_none());
    assert!(space.step(3, walk_to(&space, b"110"), b'1').is_some());
    all(&space);
}

fn walk_to(space: &CompiledSpace, letters: &[u8]) -> StateId {
    let start = space.start().1;
    let step = |state, (gene, &letter)| space.step(gene, state, letter).unwrap().1;
    letters.iter().enumerate().fold(start, step)
}

#[test]
fn options_that_give_one_network_are_written_as_the_first() {
    // A convolution of 1x1 stands in place of the identity where the block changes its shape.
    let space = small(
        "body: [{depth: 2, c_out: 16, options: [{op: Identity, changes_shape: Conv1x1}, Conv1x1, Conv3x3]}]",
    );
    assert_eq!(all(&space), ["00", "01", "02", "20", "21", "22"]);
    let error = space.decode("12").unwrap_err().to_string();
    assert_eq!(
        error,
        "genotype 12: gives the same network with `0` in place of `1` in gene 1 (body[0] block 1), and is \
         written so"
    );
}

#[test]
fn draws_are_uniform_and_repeat() {
    let space = small(
        "body: [{depth: [1, 2], c_out: 8, op: Conv<k>x<k>, choices: {k: [1, 3, 5]}}, {op: ReLU, c_out: 8}]",
    );
    let mut counts = std::collections::BTreeMap::new();
    for letters in space.draws(7).take(12_000) {
        *counts.entry(letters).or_insert(0u32) += 1;
    }
    // 12 genotypes, 1,000 each: within five standard deviations.
    assert_eq!(counts.len(), 12);
    assert!(counts.values().all(|&count| count.abs_diff(1_000) < 160), "{counts:?}");
    let again: Vec<_> = space.draws(7).take(10).collect();
    assert_eq!(again, space.draws(7).take(10).collect::<Vec<_>>());
    assert_ne!(again, space.draws(8).take(10).collect::<Vec<_>>());
}

#[test]
fn a_restriction_leaves_genotypes_of_the_whole_space() {
    let yaml = "name: small\nversion: 3\ninput: {n: 1, c: 8, h: size, w: size}
choices: {size: [16, 32], wide: [0.5, 1.0, 2]}
body: [{depth: 2, c_out: 8*wide, op: Conv<k>x<k>, choices: {k: [1, 3, 5]}}]";
    let def: ArchSpaceDef = text::read(yaml).unwrap();
    let whole = def.compile(builtin()).unwrap();
    let values = |values: &[&str]| values.iter().map(|&value| value.to_owned()).collect();
    let restriction: Restriction = [
        ("size".to_owned(), values(&["32"])),
        ("wide".to_owned(), values(&["1.0", "0.5"])),
        ("k".to_owned(), values(&["3", "5"])),
    ]
    .into();
    let part = def.compile_restricted(builtin(), &restriction).unwrap();
    assert_eq!((whole.size(), part.size()), (2 * 3 * 9, 2 * 4));
    for genotype in all(&part) {
        assert_eq!(part.decode(&genotype), whole.decode(&genotype));
    }
    let error = part.decode("0011").unwrap_err().to_string();
    assert!(error.contains("genotype 0011: is excluded by the restriction"), "{error}");
    assert!(part.keys().len() < whole.keys().len());
    for (name, kept, problem) in [
        ("length", "1", "choice length: there is no such choice; it has k, size, wide"),
        (
            "wide",
            "0.75",
            "choice wide: `0.75` is no value of it (choices.wide); the values are 0.5, 1, 2",
        ),
        ("k", "7", "choice k: `7` is no value of it (body[0]); the values are 1, 3, 5"),
    ] {
        let restriction: Restriction = [(name.to_owned(), values(&[kept]))].into();
        let error = def.compile_restricted(builtin(), &restriction).unwrap_err().to_string();
        assert_eq!(error, problem);
    }
}
