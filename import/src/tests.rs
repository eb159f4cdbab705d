//! Models as graphs, made by hand: the readers are tested on files.

use ops_catalog::{Catalog, Merge, Network, NetworkPlan, NetworkSpec};

use crate::graph::{
    Binary, Function, Graph, Kind, Node, Operation, Pooling, Reduction, Stored, Value, ValueId,
};
use crate::{Given, ImportError, Imported, Problem, network_of};

#[derive(Default)]
struct Model {
    graph: Graph,
}

impl Model {
    fn value(&mut self, name: &str, dims: &[u64], constant: bool) -> ValueId {
        let (name, dims) = (name.to_owned(), dims.to_vec());
        let origin = constant.then(|| Stored { name: name.clone(), dims: dims.clone() });
        self.graph.values.push(Value {
            name,
            dims,
            kind: Kind::Float,
            constant,
            numbers: None,
            origin,
        });
        self.graph.values.len() - 1
    }

    fn input(&mut self, dims: &[u64]) -> ValueId {
        let id = self.value("x", dims, false);
        self.graph.inputs.push(id);
        id
    }

    fn weight(&mut self, name: &str, dims: &[u64]) -> ValueId {
        self.value(name, dims, true)
    }

    fn number(&mut self, number: f64) -> ValueId {
        let id = self.value("", &[], true);
        self.graph.values[id].numbers = Some([number].into());
        id
    }

    fn dims(&self, id: ValueId) -> Vec<u64> {
        self.graph.values[id].dims.clone()
    }

    fn add(&mut self, operation: Operation, inputs: &[ValueId], dims: &[u64]) -> ValueId {
        let place = format!("node{}", self.graph.nodes.len());
        let output = self.value(&place, dims, false);
        let operator = format!("{operation:?}").split([' ', '(']).next().unwrap().to_owned();
        self.graph.nodes.push(Node { place, operator, operation, inputs: inputs.to_vec(), output });
        output
    }

    /// A convolution without a bias that keeps the size at stride 1, and its batch norm.
    fn conv(
        &mut self,
        name: &str,
        x: ValueId,
        out: u64,
        kernel: [u64; 2],
        stride: u32,
        groups: u64,
    ) -> ValueId {
        let dims = self.dims(x);
        let weight =
            self.weight(&format!("{name}.weight"), &[out, dims[1] / groups, kernel[0], kernel[1]]);
        let padding = kernel.map(|size| u32::try_from(size / 2).unwrap());
        let operation = Operation::Conv {
            stride: vec![stride; 2],
            dilation: vec![1; 2],
            before: padding.to_vec(),
            after: padding.to_vec(),
            groups: u32::try_from(groups).unwrap(),
        };
        let [h, w] = [dims[2], dims[3]].map(|size| size.div_ceil(stride.into()));
        let x = self.add(operation, &[x, weight], &[dims[0], out, h, w]);
        let parts = ["weight", "bias", "running_mean", "running_var"]
            .map(|part| self.weight(&format!("{name}_norm.{part}"), &[out]));
        let dims = self.dims(x);
        let inputs: Vec<ValueId> = [x].into_iter().chain(parts).collect();
        self.add(Operation::BatchNorm { epsilon: 1e-5 }, &inputs, &dims)
    }

    fn apply(&mut self, function: Function, x: ValueId) -> ValueId {
        let dims = self.dims(x);
        self.add(Operation::Apply(function), &[x], &dims)
    }

    fn relu(&mut self, x: ValueId) -> ValueId {
        self.apply(Function::Relu, x)
    }

    fn binary(&mut self, binary: Binary, left: ValueId, right: ValueId) -> ValueId {
        let dims = [left, right].map(|id| self.dims(id)).into_iter().max_by_key(Vec::len).unwrap();
        self.add(Operation::Binary(binary), &[left, right], &dims)
    }

    fn reshape(&mut self, x: ValueId, dims: &[u64]) -> ValueId {
        self.add(Operation::Reshape, &[x], dims)
    }

    fn permute(&mut self, x: ValueId, order: &[usize]) -> ValueId {
        let old = self.dims(x);
        let dims: Vec<u64> = order.iter().map(|&from| old[from]).collect();
        self.add(Operation::Permute { order: order.to_vec() }, &[x], &dims)
    }

    fn linear(&mut self, name: &str, x: ValueId, out: u64) -> ValueId {
        let mut dims = self.dims(x);
        let width = *dims.last().unwrap();
        let weight = self.weight(&format!("{name}.weight"), &[out, width]);
        let bias = self.weight(&format!("{name}.bias"), &[out]);
        *dims.last_mut().unwrap() = out;
        self.add(Operation::Linear { transposed: true }, &[x, weight, bias], &dims)
    }

    fn slice(&mut self, x: ValueId, axis: usize, start: u64, length: u64) -> ValueId {
        let mut dims = self.dims(x);
        dims[axis] = length;
        self.add(Operation::Slice { axis, start, step: 1 }, &[x], &dims)
    }

    fn import(mut self, output: ValueId) -> Result<Imported, Vec<Problem>> {
        self.graph.outputs = vec![output];
        network_of(self.graph, "model", Catalog::builtin())
    }

    /// The plan of a model that can be expressed, and its network.
    fn plan(self, output: ValueId) -> (NetworkPlan, NetworkSpec) {
        let imported = self.import(output).unwrap();
        let network = Network::new(&imported.network, Catalog::builtin()).unwrap();
        (network.plan(Catalog::builtin()).unwrap(), imported.network)
    }
}

fn keys(plan: &NetworkPlan) -> Vec<String> {
    plan.steps.iter().map(|step| step.key.to_string()).collect()
}

#[test]
fn the_blocks_of_a_residual_network_are_those_of_the_catalog() {
    let mut model = Model::default();
    let x = model.input(&[1, 3, 32, 32]);
    let x = model.conv("stem", x, 16, [7, 7], 2, 1);
    let x = model.relu(x);
    // One that keeps the shape, and one that changes it.
    let mut last = x;
    for (name, out, stride) in [("a", 16, 1), ("b", 32, 2)] {
        let body = model.conv(&format!("{name}.conv1"), last, out, [3, 3], stride, 1);
        let body = model.relu(body);
        let body = model.conv(&format!("{name}.conv2"), body, out, [3, 3], 1, 1);
        let shortcut = match stride {
            1 => last,
            _ => model.conv(&format!("{name}.down"), last, out, [1, 1], stride, 1),
        };
        let sum = model.binary(Binary::Add, body, shortcut);
        last = model.relu(sum);
    }
    let pooled = model.add(
        Operation::AdaptivePool(Pooling::Average { count_include_pad: true }),
        &[last],
        &[1, 32, 1, 1],
    );
    let flat = model.reshape(pooled, &[1, 32]);
    let output = model.linear("fc", flat, 10);
    let (plan, network) = model.plan(output);
    assert_eq!(
        keys(&plan),
        [
            "Conv7x7_ReLU:n1-h32-w32-i3-o16-s2",
            "BasicBlock:n1-h16-w16-i16-o16-s1",
            "BasicBlock:n1-h16-w16-i16-o32-s2",
            "GlobalAvgPool:n1-h8-w8-i32-o32-s1",
            "Linear:n1-h1-w1-i32-o10-s1",
        ]
    );
    assert_eq!(network.ops, None);
}

#[test]
fn weights_are_found_again_with_their_batch_norms() {
    let mut model = Model::default();
    let x = model.input(&[1, 8, 8, 8]);
    let x = model.conv("a", x, 16, [3, 3], 1, 1);
    let output = model.relu(x);
    let imported = model.import(output).unwrap();
    let names: Vec<&str> = imported.weights.keys().map(String::as_str).collect();
    assert_eq!(names, ["nodes.0.conv2d-0.bias", "nodes.0.conv2d-0.weight"]);
    let Given::FoldedWeight { weight, norm } = &imported.weights["nodes.0.conv2d-0.weight"] else {
        panic!("{imported:?}")
    };
    assert_eq!(**weight, Given::Stored("a.weight".to_owned()));
    assert_eq!(norm.variance, Given::Stored("a_norm.running_var".to_owned()));
}

#[test]
fn an_inverted_residual_with_its_gate_is_one_block() {
    let mut model = Model::default();
    let x = model.input(&[1, 24, 16, 16]);
    let hidden = model.conv("expand", x, 72, [1, 1], 1, 1);
    let hidden = model.relu(hidden);
    let hidden = model.conv("depthwise", hidden, 72, [3, 3], 1, 72);
    let hidden = model.relu(hidden);
    let pooled = model.add(
        Operation::Reduce { reduction: Reduction::Mean, axes: vec![2, 3], keep: true },
        &[hidden],
        &[1, 72, 1, 1],
    );
    let mut narrow = pooled;
    for (name, out) in [("reduce", 24), ("widen", 72)] {
        let width = model.dims(narrow)[1];
        let weight = model.weight(&format!("{name}.weight"), &[out, width, 1, 1]);
        let bias = model.weight(&format!("{name}.bias"), &[out]);
        let conv = Operation::Conv {
            stride: vec![1; 2],
            dilation: vec![1; 2],
            before: vec![0; 2],
            after: vec![0; 2],
            groups: 1,
        };
        narrow = model.add(conv, &[narrow, weight, bias], &[1, out, 1, 1]);
        narrow = match name {
            "reduce" => model.relu(narrow),
            _ => model.apply(Function::Hardsigmoid, narrow),
        };
    }
    let gated = model.binary(Binary::Mul, narrow, hidden);
    let body = model.conv("project", gated, 24, [1, 1], 1, 1);
    let output = model.binary(Binary::Add, x, body);
    let (plan, _) = model.plan(output);
    assert_eq!(keys(&plan), ["MBConv3_3x3_SE_ReLU:n1-h16-w16-i24-o24-s1"]);
}

#[test]
fn a_layer_of_a_transformer_is_one_block() {
    let mut model = Model::default();
    let x = model.input(&[1, 3, 32, 32]);
    let patches = model.conv("patches", x, 128, [1, 1], 8, 1);
    let flat = model.reshape(patches, &[1, 128, 16]);
    let tokens = model.permute(flat, &[0, 2, 1]);
    let norm = |model: &mut Model, x: ValueId| {
        let parts = ["weight", "bias"].map(|part| model.weight(part, &[128]));
        let dims = model.dims(x);
        let norm = Operation::LayerNorm { dimensions: 1, epsilon: 1e-6 };
        model.add(norm, &[x, parts[0], parts[1]], &dims)
    };
    let normed = norm(&mut model, tokens);
    let qkv = model.linear("qkv", normed, 384);
    let split = model.reshape(qkv, &[1, 16, 3, 2, 64]);
    let split = model.permute(split, &[2, 0, 3, 1, 4]);
    let parts = [0, 1, 2].map(|part| {
        let part = model.slice(split, 0, part, 1);
        model.reshape(part, &[1, 2, 16, 64])
    });
    // As files without attention have it: scores, softmax, sum.
    let keys_first = model.permute(parts[1], &[0, 1, 3, 2]);
    let scores = model.add(Operation::MatMul, &[parts[0], keys_first], &[1, 2, 16, 16]);
    let eighth = model.number(0.125);
    let scores = model.binary(Binary::Mul, scores, eighth);
    let weights = model.add(Operation::Softmax { axis: 3 }, &[scores], &[1, 2, 16, 16]);
    let mixed = model.add(Operation::MatMul, &[weights, parts[2]], &[1, 2, 16, 64]);
    let mixed = model.permute(mixed, &[0, 2, 1, 3]);
    let mixed = model.reshape(mixed, &[1, 16, 128]);
    let attended = model.linear("out", mixed, 128);
    let sum = model.binary(Binary::Add, tokens, attended);
    let normed = norm(&mut model, sum);
    let wide = model.linear("mlp.0", normed, 512);
    // GELU by its error function.
    let root = model.number(std::f64::consts::SQRT_2);
    let curve = model.binary(Binary::Div, wide, root);
    let curve = model.apply(Function::Erf, curve);
    let one = model.number(1.0);
    let curve = model.binary(Binary::Add, curve, one);
    let product = model.binary(Binary::Mul, wide, curve);
    let half = model.number(0.5);
    let wide = model.binary(Binary::Mul, product, half);
    let narrow = model.linear("mlp.3", wide, 128);
    let output = model.binary(Binary::Add, sum, narrow);
    let (plan, _) = model.plan(output);
    let keys = keys(&plan);
    // The patches, the map as tokens, and the layer.
    assert_eq!(keys.last().unwrap(), "TransformerEncoder:n1-h16-w1-i128-o128-s1", "{keys:?}");
    assert_eq!(keys.len(), 3, "{keys:?}");
}

#[test]
fn windows_that_are_rolled_are_found() {
    let mut model = Model::default();
    let x = model.input(&[1, 64, 8, 8]);
    let x = model.permute(x, &[0, 2, 3, 1]);
    let rolled =
        model.add(Operation::Roll { shifts: vec![(1, -2), (2, -2)] }, &[x], &[1, 8, 8, 64]);
    let windows = model.reshape(rolled, &[1, 2, 4, 2, 4, 64]);
    let windows = model.permute(windows, &[0, 1, 3, 2, 4, 5]);
    let windows = model.reshape(windows, &[4, 16, 64]);
    let qkv = model.linear("qkv", windows, 192);
    let split = model.reshape(qkv, &[4, 16, 3, 2, 32]);
    let split = model.permute(split, &[2, 0, 3, 1, 4]);
    let parts = [0, 1, 2].map(|part| {
        let part = model.slice(split, 0, part, 1);
        model.reshape(part, &[4, 2, 16, 32])
    });
    let bias = model.weight("bias", &[1, 2, 16, 16]);
    let mask = model.weight("mask", &[4, 1, 16, 16]);
    let attention = Operation::Attention { causal: false, scale: None, cosine: false };
    let inputs = [parts[0], parts[1], parts[2], bias, mask];
    let mixed = model.add(attention, &inputs, &[4, 2, 16, 32]);
    let mixed = model.permute(mixed, &[0, 2, 1, 3]);
    let mixed = model.reshape(mixed, &[4, 16, 64]);
    let out = model.linear("out", mixed, 64);
    let map = model.reshape(out, &[1, 2, 2, 4, 4, 64]);
    let map = model.permute(map, &[0, 1, 3, 2, 4, 5]);
    let map = model.reshape(map, &[1, 8, 8, 64]);
    let back = model.add(Operation::Roll { shifts: vec![(1, 2), (2, 2)] }, &[map], &[1, 8, 8, 64]);
    let output = model.binary(Binary::Add, x, back);
    let (_, network) = model.plan(output);
    let ops = network.ops.unwrap();
    let [op] = &ops[..] else { panic!("{ops:?}") };
    let text = serde_json::to_string(&op.nodes[0].apply).unwrap();
    assert_eq!(text, r#"{"window_attention":{"heads":"c_in/32","window":4,"shift":2}}"#);
    assert_eq!(op.nodes.len(), 2);
}

impl Model {
    /// `torch.nn.functional.normalize` over the last dimension.
    fn normalize(&mut self, x: ValueId) -> ValueId {
        let dims = self.dims(x);
        let last = dims.len() - 1;
        let one = [&dims[..last], &[1]].concat();
        let squares = self.binary(Binary::Mul, x, x);
        let reduce = Operation::Reduce { reduction: Reduction::Sum, axes: vec![last], keep: true };
        let sum = self.add(reduce, &[squares], &one);
        let length = self.apply(Function::Sqrt, sum);
        let length = self.apply(Function::Clip { min: 1e-12, max: f64::INFINITY }, length);
        let length = self.add(Operation::Expand, &[length], &dims);
        self.add(Operation::Binary(Binary::Div), &[x, length], &dims)
    }

    /// Attention by cosines of `[batch, heads, length, size]`, as models write it out.
    fn cosine_attention(&mut self, [q, k, v]: [ValueId; 3], bias: Option<ValueId>) -> ValueId {
        let [batch, heads, length, _] = self.dims(q)[..] else { panic!("four dimensions") };
        let (q, k) = (self.normalize(q), self.normalize(k));
        let k = self.permute(k, &[0, 1, 3, 2]);
        let dims = [batch, heads, length, length];
        let scores = self.add(Operation::MatMul, &[q, k], &dims);
        let factors = self.weight("logit_scale", &[heads, 1, 1]);
        let mut scores = self.binary(Binary::Mul, scores, factors);
        if let Some(bias) = bias {
            scores = self.binary(Binary::Add, bias, scores);
        }
        let shares = self.add(Operation::Softmax { axis: 3 }, &[scores], &dims);
        let dims = self.dims(v);
        self.add(Operation::MatMul, &[shares, v], &dims)
    }
}

/// The definitions of a network's own ops, as text.
fn own_ops(network: &NetworkSpec) -> String {
    serde_json::to_string(&network.ops).unwrap()
}

/// Swin V2: a window of 4 on a map of 3 rows and columns, which is padded and cut again.
#[test]
fn attention_by_cosines_in_one_padded_window_is_found() {
    let mut model = Model::default();
    let x = model.input(&[1, 64, 3, 3]);
    let x = model.permute(x, &[0, 2, 3, 1]);
    let pad = Operation::Pad { before: vec![0; 4], after: vec![0, 1, 1, 0] };
    let padded = model.add(pad, &[x], &[1, 4, 4, 64]);
    let tokens = model.reshape(padded, &[1, 16, 64]);
    let qkv = model.linear("qkv", tokens, 192);
    let split = model.reshape(qkv, &[1, 16, 3, 2, 32]);
    let split = model.permute(split, &[2, 0, 3, 1, 4]);
    let parts = [0, 1, 2].map(|part| {
        let part = model.slice(split, 0, part, 1);
        model.reshape(part, &[1, 2, 16, 32])
    });
    let bias = model.weight("bias", &[1, 2, 16, 16]);
    let mixed = model.cosine_attention(parts, Some(bias));
    let mixed = model.permute(mixed, &[0, 2, 1, 3]);
    let mixed = model.reshape(mixed, &[1, 16, 64]);
    let out = model.linear("out", mixed, 64);
    let map = model.reshape(out, &[1, 4, 4, 64]);
    let map = model.slice(map, 1, 0, 3);
    let map = model.slice(map, 2, 0, 3);
    let output = model.binary(Binary::Add, x, map);
    let (plan, network) = model.plan(output);
    let text = own_ops(&network);
    let wanted = r#"{"window_attention":{"heads":"c_in/32","window":4,"cosine":true}}"#;
    assert!(text.contains(wanted), "{text}");
    assert_eq!(plan.output.dims(), [1, 64, 3, 3]);
}

/// EdgeNeXt: channels attend to channels, by sums over the positions.
#[test]
fn attention_of_channels_is_found() {
    let mut model = Model::default();
    let x = model.input(&[1, 32, 4, 4]);
    let flat = model.reshape(x, &[1, 32, 16]);
    let tokens = model.permute(flat, &[0, 2, 1]);
    let qkv = model.linear("qkv", tokens, 96);
    let split = model.reshape(qkv, &[1, 16, 3, 4, 8]);
    let split = model.permute(split, &[2, 0, 3, 4, 1]);
    let parts = [0, 1, 2].map(|part| {
        let part = model.slice(split, 0, part, 1);
        model.reshape(part, &[1, 4, 8, 16])
    });
    let mixed = model.cosine_attention(parts, None);
    let mixed = model.permute(mixed, &[0, 3, 1, 2]);
    let mixed = model.reshape(mixed, &[1, 16, 32]);
    let output = model.linear("out", mixed, 32);
    let (plan, network) = model.plan(output);
    let text = own_ops(&network);
    assert!(text.contains(r#"{"channel_attention":{"heads":4}}"#), "{text}");
    let products = 2 * 16 * 32 * 8;
    assert_eq!(plan.cost.flops, 16 * 32 * (96 + 32) + products);
}

#[test]
fn a_layer_along_the_positions_exchanges_them_with_the_channels() {
    let mut model = Model::default();
    let x = model.input(&[1, 8, 4, 4]);
    let flat = model.reshape(x, &[1, 8, 16]);
    let tokens = model.permute(flat, &[0, 2, 1]);
    let turned = model.permute(tokens, &[0, 2, 1]);
    let wide = model.linear("token.1", turned, 24);
    let wide = model.apply(Function::Gelu, wide);
    let narrow = model.linear("token.2", wide, 16);
    let back = model.permute(narrow, &[0, 2, 1]);
    let output = model.binary(Binary::Add, tokens, back);
    let (plan, network) = model.plan(output);
    assert_eq!(own_ops(&network).matches(r#""transpose""#).count(), 2);
    assert_eq!(plan.cost.params, 16 * 24 + 24 + 24 * 16 + 16);
    assert_eq!(plan.cost.flops, 2 * 8 * 16 * 24);
    assert_eq!(plan.output.dims(), [1, 16, 8]);
}

/// Older versions of ONNX have no group norm.
#[test]
fn a_norm_of_instances_with_factors_for_channels_is_a_group_norm() {
    let mut model = Model::default();
    let x = model.input(&[1, 8, 4, 4]);
    let grouped = model.reshape(x, &[1, 2, 64]);
    let [ones, zeros] = [1.0, 0.0].map(|number| {
        let id = model.weight("", &[2]);
        model.graph.values[id].numbers = Some([number; 2].into());
        id
    });
    let norm = Operation::GroupNorm { groups: 2, epsilon: 1e-5 };
    let normed = model.add(norm, &[grouped, ones, zeros], &[1, 2, 64]);
    let map = model.reshape(normed, &[1, 8, 4, 4]);
    let (scale, shift) = (model.weight("scale", &[8, 1, 1]), model.weight("shift", &[8, 1, 1]));
    let scaled = model.binary(Binary::Mul, map, scale);
    let output = model.binary(Binary::Add, scaled, shift);
    let (plan, network) = model.plan(output);
    assert!(own_ops(&network).contains(r#"{"group_norm":{"groups":2}}"#));
    assert_eq!(plan.cost.params, 16);
}

#[test]
fn one_number_is_no_parameter() {
    let mut model = Model::default();
    let x = model.input(&[1, 8, 4, 4]);
    let x = model.conv("a", x, 8, [1, 1], 1, 1);
    let half = model.number(2.0);
    let output = model.binary(Binary::Div, x, half);
    let imported = model.import(output).unwrap();
    let factor = imported.weights.iter().find(|(name, _)| name.ends_with(".factor"));
    assert_eq!(factor.map(|(_, given)| given), Some(&Given::Constant(0.5, vec![1])));
    let network = Network::new(&imported.network, Catalog::builtin()).unwrap();
    assert_eq!(network.plan(Catalog::builtin()).unwrap().cost.params, 8 * 8 + 8);
}

#[test]
fn shuffled_channels_are_the_unit_of_the_catalog() {
    let mut model = Model::default();
    let x = model.input(&[1, 32, 8, 8]);
    let [kept, branch] = [0, 16].map(|start| model.slice(x, 1, start, 16));
    let branch = model.conv("a", branch, 16, [1, 1], 1, 1);
    let branch = model.relu(branch);
    let branch = model.conv("b", branch, 16, [3, 3], 1, 16);
    let branch = model.conv("c", branch, 16, [1, 1], 1, 1);
    let branch = model.relu(branch);
    let joined = model.add(Operation::Concat { axis: 1 }, &[kept, branch], &[1, 32, 8, 8]);
    let groups = model.reshape(joined, &[1, 2, 16, 8, 8]);
    let groups = model.permute(groups, &[0, 2, 1, 3, 4]);
    let shuffled = model.reshape(groups, &[1, 32, 8, 8]);
    let output = model.conv("d", shuffled, 64, [1, 1], 1, 1);
    let (plan, _) = model.plan(output);
    let expected = ["ShuffleUnit:n1-h8-w8-i32-o32-s1", "Conv1x1:n1-h8-w8-i32-o64-s1"];
    assert_eq!(keys(&plan), expected);
}

#[test]
fn what_the_catalog_lacks_becomes_ops_that_widths_share() {
    let mut model = Model::default();
    let x = model.input(&[1, 16, 16, 16]);
    let x = model.conv("a", x, 24, [1, 7], 1, 1);
    let x = model.relu(x);
    let x = model.conv("b", x, 48, [1, 7], 1, 1);
    let output = model.relu(x);
    let (plan, network) = model.plan(output);
    let ops = network.ops.unwrap();
    assert_eq!(ops.len(), 1, "{ops:?}");
    assert!(ops[0].name.starts_with("Conv1x7_Relu_"), "{}", ops[0].name);
    let name = &ops[0].name;
    let expected =
        [format!("{name}:n1-h16-w16-i16-o24-s1"), format!("{name}:n1-h16-w16-i24-o48-s1")];
    assert_eq!(keys(&plan), expected);
}

/// A dense block reads all that came before it, so nothing is a cut, and it is larger than an op may be.
#[test]
fn a_part_that_is_too_large_for_an_op_is_branches_of_the_network() {
    let mut model = Model::default();
    let x = model.input(&[1, 8, 8, 8]);
    let mut features = vec![model.conv("stem", x, 8, [3, 3], 1, 1)];
    for layer in 0..20 {
        let width = features.iter().map(|&part| model.dims(part)[1]).sum();
        let joined = match features[..] {
            [only] => only,
            _ => model.add(Operation::Concat { axis: 1 }, &features.clone(), &[1, width, 8, 8]),
        };
        let new = model.relu(joined);
        let new = model.conv(&format!("{layer}.a"), new, 16, [1, 1], 1, 1);
        let new = model.relu(new);
        features.push(model.conv(&format!("{layer}.b"), new, 4, [3, 3], 1, 1));
    }
    let output = model.add(Operation::Concat { axis: 1 }, &features.clone(), &[1, 88, 8, 8]);
    let (plan, network) = model.plan(output);
    let nodes = network.nodes.unwrap();
    let concats = nodes.iter().filter(|node| node.merge == Some(Merge::Concat)).count();
    assert_eq!(concats, 20, "one for each layer but the first, and one at the end");
    // 20 layers, the stem, and what the last concatenation feeds.
    assert_eq!(nodes.len(), 22);
    let convs: u64 = (0..20).map(|layer| (8 + 4 * layer) * 16 + 16 + 16 * 9 * 4 + 4).sum();
    assert_eq!(plan.cost.params, convs + 8 * 8 * 9 + 8);
    // All layers have one definition.
    assert!(network.ops.unwrap().len() <= 2);
}

#[test]
fn problems_are_all_listed_and_there_is_no_network() {
    let mut model = Model::default();
    let x = model.input(&[1, 8, 8, 8]);
    let y = model.apply(Function::Abs, x);
    let y = model.conv("a", y, 8, [3, 3], 1, 1);
    let z = model.add(Operation::Softmax { axis: 2 }, &[x], &[1, 8, 8, 8]);
    let output = model.binary(Binary::Add, y, z);
    let problems = model.import(output).unwrap_err();
    let told: Vec<String> = problems.iter().map(Problem::to_string).collect();
    assert_eq!(
        told,
        [
            "node0 (Apply): the function Abs is not in the catalog",
            "node3 (Softmax): a softmax along dimension 2 of a tensor in the order [1, c:8, h:8, w:8]; the catalog has \
             one over the channels, and attention",
        ]
    );
}

/// What a problem is told as.
fn told(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(Problem::to_string).collect()
}

#[test]
fn problems_behind_another_one_are_listed_too() {
    let mut model = Model::default();
    let x = model.input(&[1, 8, 8, 8]);
    // A sum over the channels has no place, so the place of what it gives is not known.
    let reduce = Operation::Reduce { reduction: Reduction::Sum, axes: vec![1], keep: true };
    let sum = model.add(reduce, &[x], &[1, 1, 8, 8]);
    let root = model.apply(Function::Sqrt, sum);
    let quotient = model.binary(Binary::Div, x, root);
    // A convolution reads a map, whatever gave it.
    let y = model.conv("a", quotient, 8, [3, 3], 1, 1);
    let z = model.add(Operation::Softmax { axis: 2 }, &[y], &[1, 8, 8, 8]);
    let shared = model.binary(Binary::Max, z, y);
    let output = model.binary(Binary::Add, quotient, shared);
    let problems = model.import(output).unwrap_err();
    assert_eq!(
        told(&problems),
        [
            "node0 (Reduce): Sum over the dimensions [1] of a tensor in the order [1, c:8, h:8, w:8]; the catalog has the \
             mean over all positions",
            "node1 (Apply): the function Sqrt is not in the catalog",
            "node2 (Binary): Div of two computed values is not in the catalog",
            "node5 (Softmax): a softmax along dimension 2 of a tensor in the order [1, c:8, h:8, w:8]; the catalog has \
             one over the channels, and attention",
            "node6 (Binary): Max of two computed values is not in the catalog",
        ]
    );
}

#[test]
fn the_same_problem_of_many_layers_is_one_line() {
    let problem = |node: &str, why: &str| Problem {
        node: node.to_owned(),
        operator: "Abs".to_owned(),
        why: why.to_owned(),
    };
    let all = vec![problem("a", "no"), problem("b", "never"), problem("c", "no")];
    assert_eq!(
        ImportError::Inexpressible(all).to_string(),
        "3 parts of it cannot be expressed:\n  a (Abs): no (and 1 more like it)\n  b (Abs): never"
    );
}

#[test]
fn a_model_with_two_inputs_is_refused_with_its_other_problems() {
    let mut model = Model::default();
    let x = model.input(&[1, 8, 8, 8]);
    let y = model.input(&[1, 8, 8, 8]);
    let sum = model.binary(Binary::Add, x, y);
    let output = model.apply(Function::Erf, sum);
    let problems = model.import(output).unwrap_err();
    assert_eq!(
        told(&problems),
        [
            "the input (input): the model has 2 inputs, and a network has one: export it with the others as constants",
            "node1 (Apply): the function Erf is not in the catalog",
        ]
    );
}

#[test]
fn a_picture_without_a_batch_is_told() {
    let unbatched = |dims: &[u64], batched: &[u64]| {
        let mut model = Model::default();
        let x = model.input(dims);
        let x = model.reshape(x, batched);
        let output = model.conv("a", x, 8, [3, 3], 1, 1);
        model.import(output)
    };
    assert_eq!(
        told(&unbatched(&[3, 8, 8], &[1, 3, 8, 8]).unwrap_err()),
        [
            "x (input): its shape [3, 8, 8] has no batch dimension: export the model with one in front, as in [1, 3, 8, 8]"
        ]
    );
    // A batch of one picture of one channel is the same as one channel without a batch.
    let one = unbatched(&[1, 8, 8], &[1, 1, 8, 8]).unwrap();
    assert_eq!(one.network.input.map(|input| (input.c, input.h)), Some((1, 8)));
}

/// LeViT has queries, keys and values of a head together, and keys that are narrower than values.
#[test]
fn parts_of_heads_are_put_together() {
    let mut model = Model::default();
    let x = model.input(&[1, 32, 4, 4]);
    let x = model.reshape(x, &[1, 32, 16]);
    let tokens = model.permute(x, &[0, 2, 1]);
    // Two heads of 8 + 8 + 16 channels.
    let qkv = model.linear("qkv", tokens, 64);
    let heads = model.reshape(qkv, &[1, 16, 2, 32]);
    let heads = model.permute(heads, &[0, 2, 1, 3]);
    let parts =
        [(0, 8), (8, 8), (16, 16)].map(|(start, length)| model.slice(heads, 3, start, length));
    let attention = Operation::Attention { causal: false, scale: None, cosine: false };
    let mixed = model.add(attention, &parts, &[1, 2, 16, 16]);
    let mixed = model.permute(mixed, &[0, 2, 1, 3]);
    let mixed = model.reshape(mixed, &[1, 16, 32]);
    let output = model.linear("out", mixed, 32);
    let imported = model.import(output).unwrap();
    assert_eq!(imported.notes.len(), 1, "{:?}", imported.notes);
    let text = serde_json::to_string(&imported.network.ops).unwrap();
    for part in [
        r#"{"slice":{"along":"channels","start":0,"length":16,"step":1}}"#,
        r#"{"slice":{"along":"channels","start":16,"length":16,"step":1}}"#,
        r#"{"slice":{"along":"channels","start":32,"length":"c_out","step":1}}"#,
        r#"{"attention":{"heads":2,"kv_heads":2}}"#,
    ] {
        let numbers = part.replace("\"c_out\"", "32");
        assert!(text.contains(part) || text.contains(&numbers), "{part}: {text}");
    }
}
