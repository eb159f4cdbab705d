//! The built-in spaces: their sizes, and the op keys that they need.

use std::collections::HashSet;

use ops_catalog::arch_space::builtin_spaces;
use ops_catalog::{Network, OpKey};

use super::space;
use crate::builtin;

#[test]
fn their_sizes_are_the_published_ones() {
    let cell = 180 * 49u128.pow(4);
    let ofa_stage = 9u128.pow(2) + 9u128.pow(3) + 9u128.pow(4);
    for (name, size) in [
        ("nas_bench_macro", 6_561),
        ("nas_bench_201", 15_625),
        ("darts", cell.pow(2)),
        ("ofa_mobilenet_v3", 25 * 2 * ofa_stage.pow(5)),
        ("vision_transformer", 4 * 2 * 5 * (4..=14).map(|depth| 4u128.pow(depth)).sum::<u128>()),
        // 3, 4, 5, 3 and 4 blocks with a depth_mult of 1.2, and 2, 3, 4, 2 and 3 without.
        ("mobilenet_v3_fpn", 4 * 3 * 2 * (8u128.pow(14) + 8u128.pow(19))),
        ("mobilenet_v2_fpn", 4 * 3 * 2 * (8u128.pow(16) + 8u128.pow(21))),
    ] {
        assert_eq!(space(name).size(), size, "{name}");
        let digits = (size as f64).log10();
        assert!((space(name).log10_size() - digits).abs() < 1e-9, "{name}");
    }
}

#[test]
fn a_measured_space_of_op_keys_predicts_every_network() {
    for (name, measured) in [
        ("mobilenet_v3_fpn", ["mobilenet", "fpn"].as_slice()),
        ("vision_transformer", ["transformer"].as_slice()),
    ] {
        let of = |space: &&str| builtin().space(space).unwrap().resolve(builtin()).unwrap().entries;
        let measured: HashSet<OpKey> = measured.iter().flat_map(of).map(|(key, _)| key).collect();
        for key in space(name).keys() {
            assert!(measured.contains(&key.key()), "{name} needs {}", key.key());
        }
    }
}

/// The candidate of the listing in the NAS guide, and the demonstrations of the catalog.
#[test]
fn the_candidate_of_the_guide_is_a_chain() {
    let chain = space("layer_chain");
    let network = builtin().network("seed_candidate").unwrap();
    let letters = chain.encode(&network).unwrap();
    assert_eq!(letters, "350i1b...............");
    let decoded = Network::new(&chain.decode(&letters).unwrap(), builtin()).unwrap();
    let canonical = |network: &Network| network.plan(builtin()).unwrap().canonical();
    assert_eq!(canonical(&decoded), canonical(&network));
}

#[test]
fn the_genes_and_the_size_of_each_space_are_pinned() {
    let mut report = String::new();
    for builtin in builtin_spaces() {
        let space = builtin.compile();
        let letters = space.draws(1).next().unwrap();
        report.push_str(&format!(
            "{}@{}: {} genotypes, {} genes, {} keys, {}\n",
            space.name(),
            space.version(),
            space.size(),
            space.genes().len(),
            space.keys().len(),
            space.genotype(&letters),
        ));
    }
    insta::assert_snapshot!(report);
}
