//! The examples and tables of `docs/catalog.md`.

use ops_catalog::{Network, NetworkSpec, Op, OpDef, SpaceDef};

use crate::builtin;

const PAGE: &str = include_str!("../../../docs/catalog.md");

/// The fenced blocks of a kind, which stands after the language.
fn examples(kind: &str) -> Vec<&'static str> {
    PAGE.split("\n```")
        .filter_map(|block| block.split_once('\n'))
        .filter(|(fence, _)| fence.ends_with(kind))
        .map(|(_, text)| text)
        .collect()
}

#[test]
fn the_example_of_an_op_is_the_builtin_one() {
    let [text] = examples(" op")[..] else { panic!("one example") };
    let op = OpDef::from_yaml(text).and_then(Op::new).unwrap();
    assert_eq!(&op, builtin().op("MBConv6").unwrap().as_ref());
}

#[test]
fn the_example_of_a_space_resolves() {
    let [text] = examples(" space")[..] else { panic!("one example") };
    let space = SpaceDef::from_yaml(text).and_then(|def| def.resolve(builtin())).unwrap();
    assert_eq!(space.entries.len(), 9);
}

#[test]
fn the_examples_of_networks_plan() {
    let texts = examples(" network");
    assert_eq!(texts.len(), 3);
    for text in texts {
        let spec = NetworkSpec::from_json(text).unwrap();
        assert_eq!(NetworkSpec::from_yaml(text).unwrap(), spec);
        Network::new(&spec, builtin()).and_then(|network| network.plan(builtin())).unwrap();
    }
}

fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(|group| std::str::from_utf8(group).unwrap())
        .collect();
    groups.join(",")
}

#[test]
fn the_tables_are_up_to_date() {
    for spec in builtin().networks() {
        let Some(published) = &spec.published else { continue };
        let name = spec.name.as_deref().unwrap();
        let plan = builtin().network(name).unwrap().plan(builtin()).unwrap();
        let row = format!(
            "| `{name}` | {} | {} | {:.3} G |",
            grouped(published.params),
            grouped(plan.cost.flops),
            published.flops as f64 / 1e9
        );
        assert!(PAGE.contains(&row), "{row}");
    }
    for def in builtin().spaces() {
        let count = def.resolve(builtin()).unwrap().entries.len();
        let row = format!("| `{}` | {count} |", def.name);
        assert!(PAGE.contains(&row), "{row}");
    }
}

#[test]
fn every_primitive_is_documented() {
    let refused = OpDef::from_yaml("name: A\nnodes: [apply: nothing]").unwrap_err().to_string();
    let (_, known) = refused.split_once("known are ").unwrap();
    assert!(known.split(", ").count() >= 24, "{known}");
    for name in known.split(", ") {
        assert!(PAGE.contains(name), "{name}");
    }
}
