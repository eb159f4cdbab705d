//! The examples and tables of `docs/spaces.md`.

use ops_catalog::arch_space::{CompiledSpace, builtin_spaces};

use crate::builtin;

const PAGE: &str = include_str!("../../../../docs/spaces.md");

#[test]
fn the_example_of_a_definition_compiles() {
    let (_, after) = PAGE.split_once("```yaml arch_space\n").unwrap();
    let (text, _) = after.split_once("\n```").unwrap();
    let space = CompiledSpace::from_yaml(text, builtin()).unwrap_or_else(|e| panic!("{e}"));
    // Two choices, three depths of four options, three edges, two blocks of two options, a connection.
    assert_eq!(space.size(), 4 * (4 + 16 + 64) * 27 * 4 * 2);
    for letters in space.draws(3).take(20) {
        super::laws::walk_is_plan(&space, &letters);
    }
}

#[test]
fn every_built_in_space_is_in_the_table() {
    for builtin in builtin_spaces() {
        let size = 10f64.powf(builtin.compile().log10_size());
        let row = format!("| `{}` | {size:.1e} |", builtin.name);
        assert!(PAGE.contains(&row), "{row}");
    }
}
