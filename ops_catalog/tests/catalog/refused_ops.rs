//! Definitions, names and shapes that are refused, and that the message names the place and the problem.

use ops_catalog::{Catalog, NetworkSpec, OpDef};

use crate::{assert_refused, builtin, map, op, try_op};

#[test]
fn definitions_that_are_no_graph() {
    for (text, parts) in [
        ("nodes: []", &["op Test", "nodes", "there are 0"][..]),
        ("nodes: [{inputs: [a], apply: relu}]", &["node 0 (relu)", "no node has the id `a`"]),
        (
            "nodes: [{inputs: [a], apply: relu}, {id: a, apply: relu}]",
            &["node 0 (relu), inputs", "`a` is not before this node"],
        ),
        ("nodes: [{id: a, inputs: [a], apply: relu}]", &["node 0 `a` (relu)", "no cycles"]),
        (
            "nodes: [{id: a, apply: relu}, {id: a, apply: relu}]",
            &["node 0 `a` (relu), id", "another node has the id"],
        ),
        ("nodes: [{id: input, apply: relu}]", &["id", "not `input`"]),
        ("nodes: [{id: a.b, apply: relu}]", &["an id is letters, digits"]),
        ("nodes: [{id: '', apply: relu}]", &["an id is letters, digits"]),
        (
            "nodes: [{apply: relu}, {inputs: [input], apply: relu}]",
            &["node 0 (relu)", "nothing uses its output"],
        ),
        ("nodes: [{apply: add}]", &["node 0 (add), inputs", "between 2 and 64 inputs, and has 1"]),
        ("nodes: [{inputs: [input, input], apply: relu}]", &["takes one input, and has 2"]),
        (
            "nodes: [{apply: {attention: {heads: 2}}}]",
            &["node 0 (attention), inputs", "takes 3 inputs, and has 1"],
        ),
        (
            "nodes: [{apply: attention}]",
            &["`attention` needs fields: write them as `attention: {...}`"],
        ),
        ("nodes: [{inputs: [], apply: relu}]", &["takes one input, and has 0"]),
        ("nodes: [{apply: {split: {parts: 2}}}]", &["node 0 (split)", "an op has one output"]),
        (
            "nodes: [{apply: {split: {parts: 0}}}, {apply: relu}]",
            &["parts", "lies between 1 and 64"],
        ),
        (
            "nodes: [{apply: {split: {parts: 2}}}, {apply: relu}]",
            &["node 1 (relu), inputs", "say which part", "[id.0]"],
        ),
        (
            "nodes: [{id: p, apply: {split: {parts: 2}}}, {inputs: [p], apply: relu}]",
            &["`p` is a split: say which part, as in `p.0`"],
        ),
        (
            "nodes: [{id: p, apply: {split: {parts: 2}}}, {inputs: [p.2], apply: relu}]",
            &["`p.2`: `p` has 2 parts"],
        ),
        (
            "nodes: [{id: p, apply: {split: {parts: 2}}}, {inputs: [p.01], apply: relu}]",
            &["`p.01`: `p` has 2 parts"],
        ),
        (
            "nodes: [{id: p, when: keeps_shape, apply: {split: {parts: 2}}}, {inputs: [p.0], apply: relu}]",
            &["when", "a split is always part"],
        ),
        ("aliases: [no good]\nnodes: [{apply: relu}]", &["op Test", "`no good`"]),
        (
            "usual_stride: 2\nnodes: [{apply: relu}]",
            &["op Test, usual_stride", "is 2, but no node has the size `stride`"],
        ),
        (
            "usual_stride: 0\nnodes: [{apply: {max_pool: {kernel: 2, stride: stride}}}]",
            &["usual_stride", "is 0"],
        ),
    ] {
        assert_refused(try_op(&format!("name: Test\n{text}")), parts);
    }
}

#[test]
fn definitions_with_bad_names_or_too_many_nodes() {
    for name in ["''", "9x", "a b", "Ünion", "a/b", &"x".repeat(51), &"x".repeat(100_000)] {
        assert_refused(
            try_op(&format!("name: {name}\nnodes: [{{apply: relu}}]")),
            &["op name `", "a name is"],
        );
    }
    let nodes = "{apply: relu},".repeat(65);
    assert_refused(
        try_op(&format!("name: Test\nnodes: [{nodes}]")),
        &["there are 65; an op has between 1 and 64"],
    );
    let long = "a".repeat(5_000);
    assert_refused(
        try_op(&format!("name: Test\nnodes: [{{id: {long}, apply: relu}}]")),
        &["an id is"],
    );
    assert_refused(
        try_op(&format!("name: Test\nnodes: [{{inputs: [{long}], apply: relu}}]")),
        &["no node has the id"],
    );
}

#[test]
fn syntax_errors_say_line_and_column() {
    for (text, parts) in [
        (
            "name: A\nnodes:\n  - apply: relu7\n",
            &["nodes[0].apply: `relu7` is not known here", "relu6", "line 3"][..],
        ),
        ("name: A\nnodes:\n  - aply: relu\n", &["there is no field `aply`", "line 3, column 5"]),
        (
            "name: A\nnodes:\n  - apply: {conv2d: {kernel: 3}}\n",
            &["nodes[0].apply.conv2d: `out` is missing", "line 3"],
        ),
        (
            "name: A\nnodes:\n  - apply: {conv2d: {out: 8, kernel: 3, pading: 1}}\n",
            &["there is no field `pading`", "line 3"],
        ),
        (
            "name: A\nnodes:\n  - apply: {conv2d: {out: c_mid, kernel: 3}}\n",
            &["`c_mid` is not a size", "6*c_in", "line 3"],
        ),
        (
            "name: A\nnodes:\n  - apply: {conv2d: {out: -8, kernel: 3}}\n",
            &["-8 is negative", "line 3"],
        ),
        (
            "name: A\nnodes:\n  - {apply: relu, when: sometimes}\n",
            &["`sometimes` is not known here", "keeps_shape", "line 3"],
        ),
        ("name: A\ninput: image\nnodes: []\n", &["`image` is not known here", "line 2"]),
        (
            "name: A\nname: B\nnodes: []\n",
            &["`name` stands twice, first in line 1, column 1", "line 2"],
        ),
        ("name: A\nnodes: [", &["line 2", "it is not YAML: a `[` or `{` is not closed"]),
        ("nodes: [{apply: relu}]", &["`name` is missing"]),
        ("", &["it is empty"]),
    ] {
        assert_refused(OpDef::from_yaml(text), parts);
    }
    assert_refused(
        NetworkSpec::from_json("{\"layers\": [\n{\"op\": \"Conv3x3\", \"strid\": 1}]}"),
        &["there is no field `strid`", "line 2"],
    );
    assert_refused(
        NetworkSpec::from_json("{\"layers\": [3]}"),
        &["a layer: {\"op\": ..., \"c_out\": ..., \"stride\": ...}, or an op's name"],
    );
}

#[test]
fn shapes_that_an_op_cannot_have() {
    let zero = |field: &str| {
        let mut shape = map(8, 8, 8, 1);
        match field {
            "batch" => shape.batch = 0,
            "input_h" => shape.input_h = 0,
            "input_w" => shape.input_w = 0,
            "channels_in" => shape.channels_in = 0,
            "channels_out" => shape.channels_out = 0,
            _ => shape.stride = 0,
        }
        shape
    };
    for field in ["batch", "input_h", "input_w", "channels_in", "channels_out", "stride"] {
        let refused = builtin().op("Conv3x3").unwrap().at(&zero(field));
        assert_refused(refused, &[&format!("{field} is 0; it lies between 1 and")]);
    }
    for (name, shape, parts) in [
        (
            "Conv3x3",
            map(2, 8, 8, 3),
            &["Conv3x3:n1-h2-w2-i8-o8-s3", "stride 3 is larger than the input of 2x2"][..],
        ),
        ("Conv3x3", map(8, 70_000, 8, 1), &["channels_in is 70000; it lies between 1 and 65536"]),
        ("Identity", map(8, 8, 8, 2), &["Identity has no stride, so its stride is 1, not 2"]),
        ("Identity", map(8, 8, 9, 1), &["gives 8 channels here, so channels_out is 8, not 9"]),
        (
            "MaxPool",
            map(1, 8, 8, 1),
            &["node 0 (max_pool)", "a window of 2", "does not fit an input of 1x1"],
        ),
        ("SelfAttention", map(7, 96, 96, 1), &["`c_in/64` is not a whole number when c_in is 96"]),
        (
            "MBConv2p5_3x3_Hardswish",
            map(7, 3, 3, 1),
            &["`5*c_in/2` is not a whole number when c_in is 3"],
        ),
        (
            "Linear",
            map(7, 8, 8, 1),
            &["takes tokens or a 1x1 map", "put a global_avg_pool before it"],
        ),
        (
            "TransformerEncoder",
            map(7, 64, 64, 1),
            &["takes a sequence: write its length as input_h and 1 as input_w"],
        ),
        ("Add", map(7, 7, 3, 1), &["node 1 (add)", "its inputs differ"]),
        ("Conv3x3", map(16_384, 65_536, 65_536, 1), &["too large to measure"]),
        (
            "SelfAttention",
            map(16_384, 64, 64, 1),
            &["node 0 (self_attention)", "is too large to measure"],
        ),
    ] {
        assert_refused(builtin().op(name).unwrap().at(&shape), parts);
    }
}

#[test]
fn nodes_whose_sizes_do_not_fit() {
    for (nodes, parts) in [
        (
            "[apply: {conv2d: {out: c_out, kernel: 3, groups: 3}}]",
            &["node 0 (conv2d)", "groups 3 does not divide the 8 channels"][..],
        ),
        (
            "[apply: {conv2d: {out: 8, kernel: 3, groups: 8}}, apply: {conv2d: {out: 9, kernel: 1, groups: 8}}]",
            &["node 1", "groups 8 does not divide the 9 channels"],
        ),
        ("[apply: {conv2d: {out: 0, kernel: 3}}]", &["`0` comes to 0; sizes lie between 1 and"]),
        ("[apply: {conv2d: {out: c_out, kernel: 0}}]", &["`0` comes to 0"]),
        ("[apply: {conv2d: {out: c_out, kernel: 3, dilation: 0}}]", &["dilation is 0"]),
        (
            "[apply: {conv2d: {out: c_out, kernel: 3, padding: 4000000000}}]",
            &["a padding of 4000000000 is too large"],
        ),
        (
            "[apply: {conv2d: {out: c_out, kernel: 19, padding: 0}}]",
            &["a window of 19 (dilation 1, padding 0) does not fit an input of 8x8"],
        ),
        (
            "[apply: {max_pool: {kernel: 3, stride: 1, padding: 2}}]",
            &["padding 2 is more than half of the window 3"],
        ),
        (
            "[apply: {conv2d: {out: c_out, kernel: [1, 19], padding: [3, 0]}}]",
            &["a window of 1x19 (dilation 1, padding 3x0) does not fit an input of 8x8"],
        ),
        (
            "[apply: {conv2d: {out: c_out, kernel: [9, 1], dilation: [1, 2], padding: [0, 0, 2, 1]}}]",
            &["a window of 9x1 (dilation 1x2, padding [0, 0, 2, 1]) does not fit an input of 8x8"],
        ),
        (
            "[apply: {conv2d: {out: c_out, kernel: 3, dilation: [1, 0]}}]",
            &["dilation is 0; it lies between 1 and 1024"],
        ),
        (
            "[apply: {avg_pool: {kernel: [3, 2], stride: 1, padding: [0, 0, 0, 2]}}]",
            &["padding 2 is more than half of the window 2"],
        ),
        (
            "[apply: {conv1d: {out: c_out, kernel: 3}}]",
            &["takes tokens or a map of width 1", "use a conv2d"],
        ),
        (
            "[apply: {to_tokens: {class_token: false}}, apply: {conv1d: {out: c_out, kernel: 3, causal: true, padding: 1}}]",
            &["node 1 (conv1d), padding", "a causal convolution has none of its own"],
        ),
        (
            "[apply: {to_tokens: {class_token: false}}, apply: {conv1d: {out: c_out, kernel: 70, padding: 1}}]",
            &["a window that reaches over 70 (padding 2) does not fit a length of 64"],
        ),
        (
            "[apply: {conv_transpose2d: {out: c_out, kernel: 3, stride: 2, output_padding: 2}}]",
            &["output_padding 2 is not smaller than the stride 2 or the dilation 1"],
        ),
        (
            "[apply: {conv_transpose2d: {out: c_out, kernel: 2, stride: 4, padding: same}}]",
            &[
                "a window of 2 is too small for an output of 4 times the size",
                "output_padding of 2",
            ],
        ),
        (
            "[apply: {conv_transpose2d: {out: c_out, kernel: 3, padding: 5}}]",
            &["padding 5 leaves nothing of an output of 10"],
        ),
        (
            "[apply: {conv_transpose2d: {out: c_out, kernel: 3, groups: 3}}]",
            &["groups 3 does not divide the 8 channels"],
        ),
        (
            "[{inputs: [input, input, input], apply: {attention: {heads: 3}}}]",
            &["node 0 (attention)", "heads 3 does not divide the 8 channels"],
        ),
        (
            "[{inputs: [input, input, input], apply: {attention: {heads: 4, kv_heads: 3}}}]",
            &["kv_heads 3 does not divide the 4 heads"],
        ),
        (
            "[{inputs: [input, input, input], apply: {attention: {heads: 4, kv_heads: 2}}}]",
            &[
                "inputs",
                "the keys have 8 channels, but 2 heads of 2 channels, as the queries have, are 4",
            ],
        ),
        (
            "[{inputs: [input, input, input], apply: {attention: {heads: 2, causal: true, position_bias: true}}}]",
            &["position_bias", "a causal attention has none"],
        ),
        (
            "[{id: p, apply: {max_pool: {kernel: 2, stride: 2}}}, \
              {inputs: [input, p, input], apply: {attention: {heads: 2}}}]",
            &["the positions of keys and values differ: [1, 8, 4, 4]"],
        ),
        (
            "[{id: p, apply: {max_pool: {kernel: 2, stride: 2}}}, \
              {inputs: [input, p, p], apply: {attention: {heads: 2, causal: true}}}]",
            &["a causal attention has as many keys as queries, but they differ: [1, 8, 8, 8]"],
        ),
        ("[apply: {group_norm: {groups: 3}}]", &["groups 3 does not divide the 8 channels"]),
        (
            "[apply: {window_attention: {heads: 2, window: 4, shift: 4}}]",
            &["shift", "is 4; it is less than the window"],
        ),
        (
            "[apply: {window_attention: {heads: 2, window: 4, shift: 1, grid: true}}]",
            &["shift", "a grid has no shift"],
        ),
        (
            "[apply: {window_attention: {heads: 2, window: 3, grid: true}}]",
            &["window 3 does not divide the map of 8x8"],
        ),
        ("[apply: {window_attention: {heads: 3, window: 4}}]", &["heads 3 does not divide"]),
        ("[apply: {window_attention: {heads: 2, window: 0}}]", &["window is 0"]),
        ("[apply: {rotary: {heads: 2}}]", &["takes tokens, but its input is [1, 8, 8, 8]"]),
        (
            "[apply: {to_tokens: {class_token: false}}, apply: {to_map_of: {size: [8, 4]}}]",
            &["node 1 (to_map_of)", "64 tokens are no map of 8x4"],
        ),
        (
            "[apply: transpose]",
            &["node 0 (transpose)", "takes tokens, but its input is [1, 8, 8, 8]"],
        ),
        (
            "[{inputs: [input, input, input], apply: {channel_attention: {heads: 3}}}]",
            &["node 0 (channel_attention)", "heads 3 does not divide the 8 channels"],
        ),
        (
            "[{id: p, apply: {max_pool: {kernel: 2, stride: 2}}}, \
              {inputs: [input, p, p], apply: {channel_attention: {heads: 2}}}]",
            &["its inputs differ: [1, 8, 8, 8]"],
        ),
        (
            "[apply: {to_tokens: {class_token: false}}, apply: {rotary: {heads: 8}}]",
            &["the 2 halves of each head: 16 does not divide the 8 channels"],
        ),
        (
            "[{id: g, apply: {conv2d: {out: 2, kernel: 1}}}, {inputs: [input, g], apply: mul}]",
            &["its inputs differ: [1, 8, 8, 8]", "[1, 2, 8, 8]"],
        ),
        (
            "[{id: g, apply: global_avg_pool}, {inputs: [input, g], apply: sub}]",
            &["node 1 (sub)", "its inputs differ"],
        ),
        (
            "[apply: {slice: {along: channels, start: 5, length: 4}}]",
            &["node 0 (slice)", "reaches to element 8, and there are 8"],
        ),
        (
            "[apply: {slice: {along: tokens, length: 1}}]",
            &["along", "the input has no such dimension: [1, 8, 8, 8]"],
        ),
        ("[apply: {slice: {along: width, length: 1, step: 0}}]", &["step is 0"]),
        ("[apply: {pad: {padding: same}}]", &["padding", "`same` needs a window"]),
        ("[apply: {space_to_depth: {block: 3}}]", &["block 3 does not divide the map of 8x8"]),
        (
            "[apply: {depth_to_space: {block: 4}}]",
            &["the square of block, 16 does not divide the 8"],
        ),
        (
            "[{id: t, apply: {to_tokens: {class_token: true}}}, {inputs: [t, input], apply: to_map}]",
            &["inputs", "65 tokens are no map of 8x8"],
        ),
        ("[apply: {unfold: {patch: 3}}]", &["patch 3 does not divide the map of 8x8"]),
        (
            "[{id: t, apply: {unfold: {patch: 4}}}, {inputs: [t, input], apply: {fold: {patch: 2}}}]",
            &[
                "inputs",
                "the patches of a map [1, 8, 8, 8]",
                "are [4, 16, 8]",
                "and not [16, 4, 8]",
            ],
        ),
        (
            "[{id: t, apply: {to_tokens: {class_token: true}}}, {id: u, inputs: [input], apply: {unfold: {patch: 2}}}, \
              {inputs: [t, u], apply: concat_tokens}]",
            &["its inputs differ in more than their length: [1, 65, 8]", "[4, 16, 8]"],
        ),
        (
            "[apply: {to_tokens: {class_token: false}}, apply: {select_token: {index: 64}}]",
            &["index", "is 64, and there are 64 tokens"],
        ),
        (
            "[apply: {embedding: {rows: 10, out: 8}}]",
            &["takes numbers, a map of one channel and width 1"],
        ),
        (
            "[apply: {to_tokens: {class_token: false}}, apply: {prepend_tokens: {count: 0}}]",
            &["count is 0"],
        ),
        ("[apply: {self_attention: {heads: 3}}]", &["heads 3 does not divide the 8 channels"]),
        ("[apply: {shuffle: {groups: 3}}]", &["groups 3 does not divide"]),
        ("[apply: {shuffle: {groups: 0}}]", &["groups 0 does not divide"]),
        ("[apply: {upsample: {scale: 0}}]", &["scale is 0; it lies between 1 and 1024"]),
        ("[apply: {squeeze_excite: {squeeze: 2, divisor: 0}}]", &["divisor is 0"]),
        (
            "[{id: a, apply: {conv2d: {out: 4, kernel: 1}}}, {inputs: [a, input], apply: add}]",
            &["node 1 (add)", "its inputs differ: [1, 4, 8, 8]", "[1, 8, 8, 8]"],
        ),
        (
            "[{id: a, apply: {max_pool: {kernel: 2, stride: 2}}}, {inputs: [a, input], apply: concat}]",
            &["differ in more than channels"],
        ),
        (
            "[apply: {to_tokens: {class_token: false}}, apply: batch_norm]",
            &["node 1 (batch_norm)", "takes a map [n, c, h, w]"],
        ),
        ("[apply: class_token]", &["takes tokens, but its input is [1, 8, 8, 8]"]),
        (
            "[{id: a, apply: relu}, {inputs: [input, a], when: changes_shape, apply: add}]",
            &["node 0 `a` (relu)", "a `when` that does not hold"],
        ),
    ] {
        assert_refused(op(nodes).at(&map(8, 8, 8, 1)), parts);
    }
}

#[test]
fn unknown_names_come_with_suggestions() {
    assert_refused(
        builtin().op("Conv3"),
        &["op Conv3", "there is no such op; the closest names are", "Conv3x3"],
    );
    assert_refused(builtin().op("mbconv6_3X3"), &["MBConv6_3x3"]);
    // What begins alike comes before what is as near in letters.
    assert_refused(
        builtin().op("Conv7x7"),
        &["the closest names are Conv7x7_ReLU, ", "a file: docs/catalog.md#adding-an-op"],
    );
    assert_refused(builtin().op(&"é".repeat(1_000_000)), &["there is no such op"]);
    assert_refused(
        builtin().space("quik"),
        &["space quik", "the built-in ones are canary, fpn, mobilenet, quick, seed, transformer"],
    );
    assert_refused(builtin().network("resnet"), &["network resnet", "resnet18"]);
    assert_refused(Catalog::default().op("Conv3x3"), &["there is no such op"]);
}

#[test]
fn names_that_are_taken() {
    let def = |text: &str| OpDef::from_yaml(text).unwrap();
    let relu = "nodes: [apply: relu]";
    let add = |text: &str| builtin().with_ops([def(text)]);
    assert_refused(
        add(&format!("name: Conv3x3\n{relu}")),
        &["op Conv3x3", "taken by another definition", "give yours another name"],
    );
    assert_refused(
        add(&format!("name: MBConv6\n{relu}")),
        &["op MBConv6", "its name is an alias of MBConv6_3x3"],
    );
    assert_refused(
        add(&format!("name: Mine\naliases: [Conv3x3]\n{relu}")),
        &["op Mine", "alias Conv3x3 is taken by Conv3x3"],
    );
    assert_refused(
        add(&format!("name: Mine\naliases: [MBConv6]\n{relu}")),
        &["alias MBConv6 is taken by MBConv6_3x3"],
    );
    assert_refused(
        add(&format!("name: Mine\naliases: [Mine]\n{relu}")),
        &["its alias is its own name"],
    );
    let two = [
        def(&format!("name: A\naliases: [C]\n{relu}")),
        def(&format!("name: B\naliases: [C]\n{relu}")),
    ];
    assert_refused(builtin().with_ops(two), &["op B", "alias C is taken by A"]);
}

#[test]
fn the_same_definition_again_changes_nothing_but_aliases() {
    let mut def = builtin().op("MaxPool").unwrap().def().clone();
    def.doc = "Another sentence.".to_owned();
    def.usual_stride = 1;
    def.aliases = vec!["Pool2x2".to_owned()];
    let catalog = builtin().with_ops([def]).unwrap();
    assert_eq!(catalog.op("Pool2x2").unwrap(), builtin().op("MaxPool").unwrap());
    assert_eq!(catalog.ops().count(), builtin().ops().count());
    assert!(builtin().op("Pool2x2").is_err());
}
