//! Mistakes in definitions and genotypes: each is named, with its place.

use ops_catalog::arch_space::{ArchSpaceDef, CompiledSpace};
use ops_catalog::{Network, NetworkSpec};

use super::space;
use crate::{assert_refused, builtin};

fn read(yaml: &str) -> Result<CompiledSpace, ops_catalog::Invalid> {
    CompiledSpace::from_yaml(yaml, builtin())
}

/// A space with one element changed.
fn with(head: &str, body: &str) -> Result<CompiledSpace, ops_catalog::Invalid> {
    read(&format!(
        "name: s\nversion: 1\ninput: {{n: 1, c: 8, h: 16, w: 16}}\n{head}body:\n  - {{op: Conv<z>x<z>, c_out: 8, choices: {{z: [1, 3]}}}}\n{body}"
    ))
}

#[test]
fn mistakes_in_the_frame_are_refused() {
    let body = "body: [{op: Conv<k>x<k>, choices: {k: [1, 3]}, c_out: 8}]";
    let input = "input: {n: 1, c: 8, h: 16, w: 16}";
    for (yaml, parts) in [
        (String::new(), ["it is empty", ""].as_slice()),
        (format!("name: s\nversion: 1\n{input}\n"), &["`body` is missing"]),
        (format!("name: s\nversion: 1\n{body}\n"), &["`input` is missing"]),
        (format!("name: s\n{input}\n{body}\n"), &["`version` is missing"]),
        (format!("name: s\nversion: 0\n{input}\n{body}\n"), &["line 2, column 10, version: is 0"]),
        (
            format!("name: a b\nversion: 1\n{input}\n{body}\n"),
            &["line 1, column 7, name: a name is"],
        ),
        (
            format!("name: s\nversion: 1\nsize: 3\n{input}\n{body}\n"),
            &["line 3, column 1", "there is no field `size` here; the fields are `name`"],
        ),
        (
            format!("name: s\nversion: 1\ninput: {{n: 1, c: 8, h: 16, w: big}}\n{body}\n"),
            &["line 3, column 31, input.w: there is no choice `big` here; there is none before it"],
        ),
        (
            format!("name: s\nversion: 1\ninput: {{n: 1, c: 8, h: 0, w: 16}}\n{body}\n"),
            &["line 3, column 24, input.h: `0` is no amount"],
        ),
        (
            format!("name: s\nversion: 1\ninput: {{n: 1, c: 8, h: 99999, w: 16}}\n{body}\n"),
            &["line 3, column 24, input.h: is 99999; it lies between 1 and 16384"],
        ),
        (
            format!("name: s\nversion: 1\ndivisor: 0\n{input}\n{body}\n"),
            &["line 3, column 10, divisor: is 0; it lies between 1 and 1024"],
        ),
        (
            format!("name: s\nversion: 1\n{input}\nbody: []\n"),
            &["line 4, column 7, body: is empty"],
        ),
        (
            format!("name: s\nversion: 1\n{input}\nbody: [{{op: ReLU, c_out: 8}}]\n"),
            &["line 4, column 7, body: leaves no choice"],
        ),
        (
            format!(
                "name: s\nversion: 1\nops: [{{name: Conv3x3, nodes: [{{apply: relu}}]}}]\n{input}\n{body}\n"
            ),
            &["line 3, column 6, ops, op Conv3x3: the name is taken by another definition"],
        ),
    ] {
        assert_refused(read(&yaml), parts);
    }
}

#[test]
fn mistakes_in_choices_are_refused() {
    let kernel = "  - {op: Conv<k>x<k>, choices: {k: [3, 5]}, c_out: 8}";
    for (head, body, parts) in [
        ("choices: {k: []}\n", kernel, ["line 4, column 14, choices.k: has no value"].as_slice()),
        ("choices: {k: 3}\n", kernel, &["line 4, column 14, choices.k: is `3`; a list of values"]),
        ("choices: {w: [1, 1.0]}\n", kernel, &["choices.w: has `1` twice"]),
        ("choices: {w: [-1]}\n", kernel, &["choices.w[0]: -1 is negative"]),
        ("choices: {w: [0.12345]}\n", kernel, &["choices.w[0]: 0.12345 is too long"]),
        ("choices: {w: [[1]]}\n", kernel, &["choices.w[0]: is a list; a number or a text"]),
        ("choices: {2w: [1]}\n", kernel, &["choices.2w: is no name"]),
        ("choices: {c_in: [1]}\n", kernel, &["choices.c_in: the name `c_in` is taken"]),
        ("choices: {k: [1]}\n", kernel, &["body[1].choices.k: the name `k` is taken"]),
        ("choices: {w: [1, 2]}\n", kernel, &["choice w: changes nothing"]),
        (
            "choices: {deep: [1.0, 1.1, 1.2]}\n",
            "  - {op: Conv3x3, c_out: 8, depth: 3*deep}",
            &["choices.deep: `1.2` is possible in no network: it gives the same networks as `1.1`"],
        ),
        (
            "",
            "  - {options: [MBConv6, Conv3x3, MBConv6_3x3], c_out: 8}",
            &[
                "body[1]: `MBConv6_3x3` is possible in no network: it gives the same networks as `MBConv6`",
            ],
        ),
        (
            "",
            "  - {id: a, op: Conv3x3, c_out: 16}\n  - {op: MaxPool, stride: 2, c_out: 16}\n  - {join: [a]}",
            &[
                "body[3].join[0]: `yes` is possible in no network",
                "can't be added: give an op `through`",
            ],
        ),
        (
            "",
            "  - {op: Conv3x3, c_out: 8*w}",
            &["line 6, column 26, body[1].c_out: there is no choice `w` here"],
        ),
        (
            "choices: {w: [a, b]}\n",
            "  - {op: Conv3x3, c_out: 8*w}",
            &["body[1].c_out: `w` has the value \"a\", which is no number"],
        ),
        (
            "choices: {w: [1.5, 1.3]}\n",
            "  - {op: Conv3x3, c_out: 3*w}",
            &["choices.w: `1.5` is possible in no network", "`3*w` comes to 4.5; a whole number"],
        ),
        (
            "choices: {n: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, \
             23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36]}\n",
            "  - {op: Conv3x3, c_out: 8*n}",
            &["choices.n: has 37 options together; one gene has at most 36"],
        ),
        (
            "",
            "  - {op: Conv<a><b><c>, c_out: 8, choices: {a: [1, 2, 3, 4], b: [1, 2, 3, 4], c: [1, 2, 3]}}",
            &["body[1]: has 48 options together"],
        ),
    ] {
        assert_refused(with(head, body), parts);
    }
}

#[test]
fn mistakes_in_the_body_are_refused() {
    for (body, parts) in [
        ("  - {}", ["body[1]: an element has one of"].as_slice()),
        ("  - {op: ReLU, cell: c}", &["body[1]: an element has one of"]),
        ("  - {op: ReLU}", &["body[1].c_out: is missing: write the output channels"]),
        ("  - {op: ReLU, c_out: 8, repeat: 2}", &["body[1].repeat: belongs to a cell"]),
        ("  - {op: ReLU, c_out: 8, through: ReLU}", &["body[1].through: belongs to `join`"]),
        ("  - {op: ReLU, c_out: 8, merge: add}", &["body[1].merge: needs several `inputs`"]),
        ("  - {op: ReLU, c_out: 8, inputs: []}", &["body[1].inputs: is empty"]),
        (
            "  - {op: ReLU, c_out: 8, inputs: [x]}",
            &["no element before it has the id `x`; known are input"],
        ),
        ("  - {op: ReLU, c_out: 8, id: input}", &["body[1].id: the name `input` is taken"]),
        ("  - {op: ReLU, c_out: 8, id: 1}", &["body[1].id: is no name: a name is a letter"]),
        ("  - {op: ReLU, c_out: 8, depth: []}", &["body[1].depth: is a list of different numbers"]),
        (
            "  - {op: ReLU, c_out: 8, depth: [1, 1]}",
            &["body[1].depth: is a list of different numbers"],
        ),
        (
            "  - {op: ReLU, c_out: 8, depth: 5000}",
            &["body[1].depth: comes to 5000; it lies between"],
        ),
        ("  - {op: ReLU, c_out: 8, depth: 0}", &["body[1].depth: `0` is no amount"]),
        ("  - {op: ReLU, c_out: c_out}", &["body[1].c_out: there is no choice `c_out` here"]),
        ("  - {op: Conv<k, c_out: 8}", &["body[1].op: has a `<` that is not closed"]),
        ("  - {op: Conv<k>, c_out: 8}", &["body[1].op: there is no choice `k` here"]),
        ("  - {options: [], c_out: 8}", &["body[1]: has no option"]),
        (
            "  - {options: [{op: ReLU, layers: []}], c_out: 8}",
            &["options[0]: an option has either"],
        ),
        ("  - {options: [ReLU], op: ReLU, c_out: 8}", &["body[1].op: stands inside each of"]),
        ("  - {options: [ReLU], choices: {a: [1]}, c_out: 8}", &["choices: stands inside each of"]),
        (
            "  - {options: [3], c_out: 8}",
            &["body[1].options[0]: is `3`; an op's name, or an option"],
        ),
        ("  - {op: Conv3x4, c_out: 8}", &["body[1], op Conv3x4: there is no such op; the closest"]),
        ("  - {join: [], through: Conv1x1}", &["body[1].join: names between 1 and 36"]),
        ("  - {join: [input, input]}", &["body[1].join: has `input` twice"]),
        ("  - {join: [input], c_out: 8}", &["body[1].c_out: belongs to layers and cells"]),
        (
            "  - {cell: c, c_out: 8}",
            &["body[1].cell: there is no cell `c`; under `cells` are none"],
        ),
        ("  - {choose: {a: [1, 2]}, id: x}", &["body[1].id: choices have no value to name"]),
        (
            "  - {op: ReLU, c_out: 8, inputs: [input]}",
            &["body[0]: not every network reads what it gives"],
        ),
        (
            "  - {options: [Conv3x3, {op: MaxPool, stride: 32}], c_out: 8}",
            &["body[1]: `MaxPool` is possible in no network"],
        ),
        (
            "  - {options: [ReLU, {layers: []}], c_out: 8, inputs: [input, input]}",
            &["body[1].inputs: are merged by the first layer"],
        ),
    ] {
        assert_refused(with("", body), parts);
    }
}

#[test]
fn mistakes_in_cells_are_refused() {
    let used = "  - {cell: c, c_out: 8}";
    for (cell, body, parts) in [
        (
            "inputs: 3, nodes: 2, edges: all, ops: [ReLU, Identity], output: last",
            used,
            ["line 4, column 21, cells.c.inputs: is 3; it is 1 or 2"].as_slice(),
        ),
        ("nodes: 0, edges: all, ops: [ReLU], output: last", used, &["cells.c.nodes: is 0"]),
        ("nodes: 9, edges: all, ops: [ReLU], output: last", used, &["cells.c.nodes: is 9"]),
        (
            "nodes: 2, edges: 2, ops: [ReLU], output: concat",
            used,
            &["cells.c.edges: is 2; the first node reads at least 1 value and at most 1"],
        ),
        (
            "nodes: 2, edges: some, ops: [ReLU], output: concat",
            used,
            &["cells.c.edges: is neither `all` nor a number"],
        ),
        (
            "nodes: 2, edges: 1, ops: [ReLU], output: last",
            used,
            &["cells.c.output: is `last`, and then"],
        ),
        ("nodes: 2, edges: all, ops: [], output: last", used, &["cells.c.ops: has no option"]),
        (
            "nodes: 2, edges: all, ops: [{layers: []}], output: last",
            used,
            &["cells.c.ops: `nothing` has no op"],
        ),
        ("nodes: 2, edges: all, ops: [ReLU], output: first", used, &["`first` is not known here"]),
        (
            "nodes: 2, edges: all, ops: [ReLU, Identity], output: last",
            "  - {op: ReLU, c_out: 8}",
            &["cells.c: is used by no element"],
        ),
        (
            "nodes: 2, edges: all, ops: [ReLU, Identity], output: last",
            "  - {cell: c}",
            &["body[1].c_out: is missing"],
        ),
        (
            "nodes: 2, edges: all, ops: [ReLU, Identity], output: last",
            "  - {cell: c, c_out: 8, repeat: 0}",
            &["body[1].repeat: is 0"],
        ),
        (
            "nodes: 2, edges: all, ops: [ReLU, Identity], output: last",
            "  - {cell: c, c_out: 8, inputs: [input, input]}",
            &["body[1].inputs: has 2 names, and the cell reads 1"],
        ),
        (
            "nodes: 1, edges: all, ops: [Conv3x3, {op: MaxPool, stride: 2}], output: last",
            used,
            &["body[1], cells.c: all options of an edge have to give one shape"],
        ),
        (
            "nodes: 1, edges: all, ops: [Identity, ReLU], output: last",
            "  - {cell: c, c_out: 16}",
            &["body[1]", "gives 8 channels here"],
        ),
    ] {
        assert_refused(with(&format!("cells: {{c: {{{cell}}}}}\n"), body), parts);
    }
}

#[test]
fn hostile_sizes_are_refused_quickly() {
    let wide =
        "  - {depth: 900, c_out: 8*x, options: [Conv3x3, {op: MaxPool, stride: 2}, Conv1x1]}\n";
    let many: String = (0..400)
        .map(|n| format!("  - {{choose: {{x{n}: [1, 2, 3, 4, 5, 6, 7]}}}}\n"))
        .chain((0..400).map(|n| format!("  - {{op: Conv3x3, c_out: 8*x{n}}}\n")))
        .collect();
    assert_refused(with("", &many), &["it is too large to be compiled"]);
    assert_refused(
        with("choices: {x: [1, 2]}\n", &wide.repeat(20)),
        &["is one gene more than 1000"],
    );
    let blocks = "  - {depth: 1000, c_out: 8, op: ReLU}\n";
    assert_refused(with("", &blocks.repeat(12)), &["body: has more than 10000 blocks"]);
    let layers = format!("  - {{c_out: 8, layers: [{}]}}", "{op: ReLU},".repeat(65));
    assert_refused(with("", &layers), &["body[1].layers: has 65 layers"]);
}

#[test]
fn genotypes_of_something_else_are_refused() {
    let macro_space = space("nas_bench_macro");
    let ofa = space("ofa_mobilenet_v3");
    for (space, genotype, problem) in [
        (
            &macro_space,
            "2222",
            "genotype 2222: has 4 letters; a genotype of nas_bench_macro@1 has 8",
        ),
        (&macro_space, "222222223", "has 9 letters"),
        (&macro_space, "", "has 0 letters"),
        (&macro_space, "22322222", "`3` is no option of gene 3 (stage2 block 1): it has 0 to 2"),
        (&macro_space, "2222.222", "`.` is no option of gene 5"),
        (&macro_space, "2222A222", "`A` is no option of gene 5"),
        (&macro_space, "2222é22", "`Ã` is no option of gene 5"),
        (
            &macro_space,
            "darts@1:22222222",
            "is of the space darts@1, and this is nas_bench_macro@1",
        ),
        (&macro_space, "nas_bench_macro@2:22222222", "is of version 2 of the space"),
        (&macro_space, "x:22222222", "should begin with nas_bench_macro@1:"),
        (
            &ofa,
            "0000.0000000000000000.",
            "gene 6 (stage1 block 4: 0), body[2]: block 4 stands after an absent one",
        ),
        (&ofa, "000.000000000000000000", "`.` is no option of gene 4"),
        (
            &ofa,
            "00z0000000000000000000",
            "`z` is no option of gene 3 (stage1 block 1): it has 0 to 8",
        ),
    ] {
        assert_refused(space.decode(genotype), &[problem]);
    }
}

#[test]
fn networks_of_something_else_are_refused() {
    let macro_space = space("nas_bench_macro");
    let spec = macro_space.decode("01201201").unwrap();
    let encoded = |json: &str| {
        let network = Network::new(&NetworkSpec::from_json(json).unwrap(), builtin())?;
        macro_space.encode(&network)
    };
    let json = serde_json::to_string(&spec).unwrap();
    assert_eq!(encoded(&json).as_deref(), Ok("01201201"));
    for (from, to, parts) in [
        (
            "MBConv6_5x5_ReLU",
            "MBConv6_3x3_ReLU",
            [
                "layers[3]: MBConv6_3x3_ReLU with 128 output channels and stride 2",
                "does not fit `stage2 block 1` of nas_bench_macro@1",
            ]
            .as_slice(),
        ),
        (
            "\"h\":32,\"w\":32",
            "\"h\":64,\"w\":64",
            &["input: n 1, c 3, h 64, w 64 is the input of no network"],
        ),
        (
            ",{\"op\":\"Linear\",\"c_out\":10,\"stride\":1}",
            "",
            &["it ends where `body[6]` of nas_bench_macro@1 has to follow"],
        ),
        (
            "\"c_out\":10,\"stride\":1}",
            "\"c_out\":10,\"stride\":1},{\"op\":\"ReLU\",\"c_out\":10,\"stride\":1}",
            &["layers[12]: ReLU with 10 output channels", "does not fit the end of"],
        ),
    ] {
        let changed = json.replacen(from, to, 1);
        assert_ne!(changed, json);
        assert_refused(encoded(&changed), parts);
    }
}

#[test]
fn hostile_text_is_refused() {
    for text in ["{", "- a", "body: [[[[", "name: &a [*a]", "\u{0}", "body: {op: {op: {op: {}}}}"] {
        assert!(ops_catalog::text::read::<ArchSpaceDef>(text).is_err(), "{text}");
    }
}
