//! Text as people have it: what is taken where its meaning is certain, and that a refusal is in the words of
//! this project, with a place.

use ops_catalog::text::{self, FOREIGN_PHRASES};
use ops_catalog::{Catalog, Invalid, Network, NetworkSpec, OpDef, OpKey, SpaceDef};

use crate::{assert_refused, builtin};

/// A refusal has a place and no phrase of a library.
#[track_caller]
fn assert_own_words<T: std::fmt::Debug>(text: &str, result: Result<T, Invalid>) {
    let refused = result.expect_err(text);
    let message = refused.to_string();
    for phrase in FOREIGN_PHRASES {
        assert!(!message.contains(phrase), "{text:?}: `{phrase}` is in: {message}");
    }
    assert!(!message.contains('\n') && message.len() < 1500, "{text:?}: {message}");
    let placed = !refused.place.is_empty() || message.starts_with("it is empty");
    assert!(placed, "{text:?}: {message}");
}

/// Mistakes that are one for whatever is read.
const NO_TEXTS: [&str; 35] = [
    "",
    "   \n",
    "[]",
    "{}",
    "7",
    "null",
    "~",
    "true",
    "just some words",
    "key = 1",
    "a: 1\na: 2\n",
    "a: 1\n---\nb: 2\n",
    "a: [1, 2",
    "a: {b: 1",
    "a: 1]",
    "a: 'open",
    "a: \"\\q\"",
    "\ta: 1",
    "a:\n\tb: 1",
    "a: 1\n  b: 2",
    "a: *nobody",
    "a: &x [*x]",
    "a: !odd 1",
    "<<: {a: 1}",
    "? [a]\n: 1",
    "- a\nb: 1",
    "%YAML 9.9\n---\na: 1",
    "{\"a\": 1,}",
    "{\"a\": 1 \"b\": 2}",
    "{\"a\": }",
    "{\"a\": 1, \"a\": 2}",
    "{'a': 1}",
    "{\"a\": NaN}",
    "{\"a\": True}",
    "{\"a\": \"\\q\"}",
];

/// What stands where something else should.
const VALUES: [&str; 22] = [
    "null",
    "true",
    "\"text\"",
    "\"8\"",
    "-1",
    "1.5",
    "1e400",
    "1e-5",
    "99999999999999999999999",
    "5000000000",
    "[]",
    "[1]",
    "[[1]]",
    "{}",
    "{\"x\": 1}",
    "{\"relu\": 1}",
    "{\"a\": 1, \"b\": 2}",
    "032",
    "1_000",
    "0x",
    "2026-01-01",
    ".nan",
];

#[test]
fn every_reader_refuses_in_its_own_words() {
    for text in NO_TEXTS {
        assert_own_words(text, NetworkSpec::from_yaml(text).and_then(|spec| network(&spec)));
        assert_own_words(text, NetworkSpec::from_json(text).and_then(|spec| network(&spec)));
        assert_own_words(
            text,
            NetworkSpec::read_all(text).map(|all| all.len()).and_then(|n| {
                // What is an empty network to one reader is a network without layers to all.
                Err::<usize, _>(Invalid::new("layers", format!("{n} networks have none")))
            }),
        );
        assert_own_words(text, SpaceDef::from_yaml(text));
        assert_own_words(text, OpDef::from_yaml(text));
    }
}

fn network(spec: &NetworkSpec) -> Result<Network, Invalid> {
    Network::new(spec, builtin())
}

#[test]
fn every_field_refuses_in_its_own_words() {
    let network_fields = [
        "{\"name\": V}",
        "{\"doc\": V}",
        "{\"published\": V}",
        "{\"published\": {\"flops\": V}}",
        "{\"input\": V}",
        "{\"input\": {\"n\": V}}",
        "{\"layers\": V}",
        "{\"layers\": [V]}",
        "{\"layers\": [{\"op\": V}]}",
        "{\"layers\": [{\"c_out\": V}]}",
        "{\"nodes\": V}",
        "{\"nodes\": [V]}",
        "{\"nodes\": [{\"inputs\": V}]}",
        "{\"nodes\": [{\"inputs\": [V]}]}",
        "{\"nodes\": [{\"merge\": V}]}",
        "{\"output\": V}",
        "{\"input_resolution\": V}",
        "{\"channels\": [V]}",
    ];
    let space_fields = [
        "{\"name\": V}",
        "{\"name\": \"a\", \"ops\": V}",
        "{\"name\": \"a\", \"keys\": [V]}",
        "{\"name\": \"a\", \"networks\": [V]}",
        "{\"name\": \"a\", \"grids\": [V]}",
        "{\"name\": \"a\", \"grids\": [{\"c_in\": [V], \"c_out\": [V]}]}",
        "{\"name\": \"a\", \"grids\": [{\"c_in\": [1], \"c_out\": [V]}]}",
        "{\"name\": \"a\", \"grids\": [{\"resolution\": V, \"c_in\": [1], \"c_out\": [1]}]}",
    ];
    let op_fields = [
        "{\"name\": V}",
        "{\"name\": \"A\", \"aliases\": V, \"nodes\": []}",
        "{\"name\": \"A\", \"input\": V, \"nodes\": []}",
        "{\"name\": \"A\", \"usual_stride\": V, \"nodes\": []}",
        "{\"name\": \"A\", \"nodes\": V}",
        "{\"name\": \"A\", \"nodes\": [{\"apply\": V}]}",
        "{\"name\": \"A\", \"nodes\": [{\"when\": V, \"apply\": \"relu\"}]}",
        "{\"name\": \"A\", \"nodes\": [{\"apply\": {\"conv2d\": V}}]}",
        "{\"name\": \"A\", \"nodes\": [{\"apply\": {\"conv2d\": {\"out\": V, \"kernel\": 1}}}]}",
        "{\"name\": \"A\", \"nodes\": [{\"apply\": {\"conv2d\": {\"out\": 1, \"kernel\": 1, \"padding\": V}}}]}",
        "{\"name\": \"A\", \"nodes\": [{\"apply\": {\"conv2d\": {\"out\": 1, \"kernel\": 1, \"bias\": V}}}]}",
        "{\"name\": \"A\", \"nodes\": [{\"apply\": {\"squeeze_excite\": {\"squeeze\": 1, \"gate\": V}}}]}",
        "{\"name\": \"A\", \"nodes\": [{\"apply\": {\"to_tokens\": V}}]}",
    ];
    let mut refused = 0;
    for value in VALUES {
        let written = |fields: &[&str]| -> Vec<String> {
            fields.iter().map(|field| field.replace('V', value)).collect()
        };
        // A value may be right in one field or another; if it is refused, then in these words.
        let mut check = |text: &str, result: Result<(), Invalid>| {
            if result.is_err() {
                refused += 1;
                assert_own_words(text, result);
            }
        };
        for text in written(&network_fields) {
            check(&text, NetworkSpec::from_yaml(&text).map(drop));
            check(&text, NetworkSpec::from_json(&text).map(drop));
        }
        for text in written(&space_fields) {
            check(&text, SpaceDef::from_yaml(&text).map(drop));
        }
        for text in written(&op_fields) {
            check(&text, OpDef::from_yaml(&text).map(drop));
        }
    }
    assert!(refused > 700, "{refused}");
    for key in ["", "Conv3x3", "Conv3x3:n1", "C:n1-h1-w1-i1-o1-s1-x1", "C:n01-h1-w1-i1-o1-s1"] {
        assert_own_words(key, key.parse::<OpKey>());
    }
}

#[test]
fn what_is_certain_is_taken() {
    let exact = r#"{"input": {"n": 1, "c": 3, "h": 32, "w": 32}, "layers": [{"op": "Conv3x3", "c_out": 10, "stride": 1}]}"#;
    let plain = NetworkSpec::from_json(exact).unwrap();
    for text in [
        format!("\u{feff}{exact}"),
        exact.replace("10", "1e1"),
        exact.replace("10", "10.0"),
        exact.replace(", ", ",\r\n"),
    ] {
        assert_eq!(NetworkSpec::from_json(&text), Ok(plain.clone()), "{text}");
        assert_eq!(NetworkSpec::from_yaml(&text), Ok(plain.clone()), "{text}");
    }
    for yaml in [
        "input: {n: 1, c: 3.0, h: 0x20, w: 3.2e1}\nlayers:\n- {op: Conv3x3, c_out: 1e1, stride: 1}",
        "input: {n: 1, c: 3, h: 32, w: 32}\r\nlayers:\r\n- {op: Conv3x3, c_out: 10, stride: 1}\r\n",
        "---\ninput: {n: 1, c: 3, h: 32, w: 32}\nlayers:\n- {op: Conv3x3, c_out: 10, stride: 1}\n---\n",
        "input: &i {n: 1, c: 3, h: 32, w: 32}\nlayers:\n- {op: !!str Conv3x3, c_out: 10, stride: 1}\n...",
    ] {
        assert_eq!(NetworkSpec::from_yaml(yaml), Ok(plain.clone()), "{yaml}");
    }
    let pool = "name: P\nnodes: [{apply: {max_pool: {kernel: 3.0, stride: 2, padding: 1.0}}}]";
    assert_eq!(OpDef::from_yaml(pool), OpDef::from_yaml(&pool.replace(".0", "")));
}

#[test]
fn what_is_not_certain_says_where_and_what_to_do() {
    let network = |from: &str, to: &str| {
        let text =
            "input: {n: 1, c: 3, h: 32, w: 32}\nlayers:\n  - {op: Conv3x3, c_out: 10, stride: 1}\n";
        NetworkSpec::from_yaml(&text.replace(from, to))
    };
    assert_refused(
        network("h: 32", "h: 032"),
        &["line 1, column 24, input.h: `032` has a leading zero", "octal: write 32"],
    );
    assert_refused(
        network("c_out: 10", "c_out: '10'"),
        &["line 3, column 26, layers[0].c_out: is the text \"10\"", "write it without quotes"],
    );
    assert_refused(network("c_out: 10", "c_out: 10.5"), &["layers[0].c_out: 10.5 is not a whole"]);
    assert_refused(network("c_out: 10", "c_out: 1_0"), &["write it without `_`"]);
    assert_refused(network("c_out: 10", "c_out: 1, c_out: 2"), &["`c_out` stands twice, first in"]);
    assert_refused(network("layers", "---\nlayers"), &["line 3", "a second document begins here"]);
    let op = |fields: &str| {
        let apply = format!("{{conv2d: {{out: 8, {fields}}}}}");
        OpDef::from_yaml(&format!("name: A\nnodes:\n  - apply: {apply}\n"))
    };
    assert_refused(
        op("kernel: [1, 7, 7]"),
        &[
            "line 3",
            "conv2d.kernel: is a list of 3; one size or a list [height, width] should stand here",
        ],
    );
    assert_refused(
        op("kernel: 3, padding: [0, 1, 0]"),
        &[
            "conv2d.padding: is a list of 3; a number, `same`, [height, width] or [top, bottom, left, right]",
        ],
    );
    assert_refused(
        op("kernel: 3, padding: valid"),
        &["conv2d.padding: is the text \"valid\"; a number, `same`"],
    );
    assert_refused(op("kernel: 3, groups: [1, 2]"), &["conv2d.groups: is a list, and one size"]);
    assert_refused(
        text::read::<SpaceDef>("name = \"a\""),
        &["this looks like TOML; YAML and JSON are read"],
    );
    let line = r#"{"input": {"n": 1, "c": 3, "h": 032, "w": 32}}"#;
    assert_refused(NetworkSpec::from_json(line), &["column 33", "octal: write 32"]);
}

#[test]
fn an_id_comes_back_digit_by_digit() {
    let id = r#"[18446744073709551617,-340282366920938463463374607431768211456,1.50,{"a":"é\n"}]"#;
    for text in [
        format!(r#"{{"id": {id}, "output": 1}}"#),
        // Not plain JSON of the wanted form, so it is read the other way.
        format!(r#"{{"id": {id}, "output": 1.0}}"#),
        format!("{{\n \"id\": {},\n \"output\": 1}}", id.replace(',', ",\n ")),
    ] {
        let spec = NetworkSpec::from_json(&text).unwrap();
        assert_eq!(spec.id.as_ref().unwrap().to_string(), id, "{text}");
        assert_eq!(serde_json::to_string(&spec).unwrap(), format!("{{\"id\":{id},\"output\":1}}"));
        assert_eq!(NetworkSpec::from_yaml(&text).unwrap(), spec);
    }
    let yaml = NetworkSpec::from_yaml("id: 18446744073709551617\noutput: 1").unwrap();
    assert_eq!(yaml.id.unwrap().to_string(), "18446744073709551617");
}

/// A concatenation of 4 + 4 + 1 channels, as inpainting networks have it, costs what the same block costs as
/// one op.
#[test]
fn an_odd_number_of_channels_is_concatenated() {
    let text = r#"{"name": "inpaint", "input": {"n": 1, "c": 9, "h": 64, "w": 64}, "nodes": [
        {"op": "Conv1x1", "c_out": 4, "stride": 1, "inputs": [-1]},
        {"op": "Conv1x1", "c_out": 4, "stride": 1, "inputs": [-1]},
        {"op": "Conv1x1", "c_out": 1, "stride": 1, "inputs": [-1]},
        {"op": "Conv3x3", "c_out": 320, "stride": 1, "inputs": [0, 1, 2], "merge": "concat"}
    ], "output": 3}"#;
    let spec = NetworkSpec::from_json(text).unwrap();
    let plan = Network::new(&spec, builtin()).and_then(|n| n.plan(builtin())).unwrap();
    assert_eq!((plan.cost.flops, plan.cost.params), (106_500_096, 26_330));
    let keys: Vec<String> = plan.steps.iter().map(|step| step.key.to_string()).collect();
    assert!(keys.contains(&"Concat:n1-h64-w64-i9-o9-s1".to_owned()), "{keys:?}");
    let concat = Catalog::builtin().op("Concat").unwrap();
    let parts = &concat.at(&crate::map(64, 9, 9, 1)).unwrap().steps[0].outputs;
    assert_eq!(parts.iter().map(|part| part.channels()).collect::<Vec<_>>(), [5, 4]);
}
