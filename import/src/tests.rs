//! Models as graphs, made by hand: the readers are tested on files.

mod attention;
mod layers;
mod problems;

use ops_catalog::{Catalog, Merge, Network, NetworkPlan, NetworkSpec};

use crate::graph::{
    Binary, Formula, Function, Graph, Kind, Node, Operation, Pooling, Reduction, Value, ValueId,
};
use crate::{Given, Imported, Problem, network_of};

#[derive(Default)]
struct Model {
    graph: Graph,
}

impl Model {
    fn value(&mut self, name: &str, dims: &[u64], constant: bool) -> ValueId {
        let (name, dims) = (name.to_owned(), dims.to_vec());
        let formula = constant.then(|| Formula::stored(&name, &dims, None));
        self.graph.values.push(Value {
            name,
            dims,
            kind: Kind::Float,
            constant,
            numbers: None,
            formula,
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

/// The definitions of a network's own ops, as text.
fn own_ops(network: &NetworkSpec) -> String {
    serde_json::to_string(&network.ops).unwrap()
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
