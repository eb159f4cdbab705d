//! A graph of ONNX operators, and the graphs of plans.

use std::rc::Rc;

use ops_catalog::{Merge, NetworkPlan, OpPlan, Source, TensorShape, Value as NetworkValue};

use crate::builder::Builder;
use crate::primitive;
use crate::weights::Weight;

/// The name of a value.
pub(crate) type Value = Rc<str>;

/// The name of the input.
const INPUT: &str = "input";

/// The name of the output.
const OUTPUT: &str = "output";

/// An op or a network as an ONNX graph, without the values of its weights. Its input is named `input`, and its output
/// `output`. All sizes are fixed, and all values are in single precision.
pub struct Model {
    /// Its name, for people.
    pub(crate) name: String,
    pub(crate) nodes: Vec<Node>,
    pub(crate) tensors: Vec<Tensor>,
    pub(crate) input: Vec<i64>,
    pub(crate) output: Vec<i64>,
}

/// An operator with its inputs and outputs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) operator: &'static str,
    pub(crate) inputs: Vec<Value>,
    pub(crate) outputs: Vec<Value>,
    pub(crate) attributes: Vec<(&'static str, Attribute)>,
}

/// A parameter of an operator.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Attribute {
    Int(i64),
    Float(f32),
    Text(&'static str),
    Ints(Vec<i64>),
}

/// A constant.
pub(crate) struct Tensor {
    pub(crate) name: Value,
    pub(crate) dims: Vec<i64>,
    pub(crate) content: Content,
}

/// The elements of a constant. Those that follow from a shape are made when they are written, since they can be large.
pub(crate) enum Content {
    Ints(Box<dyn Fn(i64) -> i64>),
    Floats(Box<dyn Fn(i64) -> f32>),
    Weight(Weight),
    /// The transpose of a weight of two dimensions.
    Transposed(Weight),
}

impl Tensor {
    pub(crate) fn elements(&self) -> i64 {
        self.dims.iter().product()
    }
}

impl Model {
    /// The graph of an op at a shape. Weights are named by its nodes.
    pub fn of_op(name: &str, plan: &OpPlan) -> Model {
        let mut builder = Builder::default();
        let result = add_op(plan, &INPUT.into(), &mut builder);
        Model::finished(name, builder, result, plan.input, plan.output)
    }

    /// The graph of a network. Names of weights begin with the place of the layer: those of `layers[3]` with
    /// `layers.3`.
    pub fn of_network(name: &str, plan: &NetworkPlan) -> Model {
        let mut builder = Builder::default();
        let mut values: Vec<Value> = Vec::with_capacity(plan.steps.len());
        for step in &plan.steps {
            let inputs: Vec<Value> = step
                .inputs
                .iter()
                .map(|input| match *input {
                    NetworkValue::Input => INPUT.into(),
                    NetworkValue::Of(index) => values[index].clone(),
                })
                .collect();
            let place = step.place.replace('[', ".").replace(']', "");
            let value = builder.within(&place, |builder| match step.merge {
                Some(merge) => add_merge(merge, &inputs, step.plan.output, builder),
                None => add_op(&step.plan, &inputs[0], builder),
            });
            values.push(value);
        }
        let ops_catalog::Input { n, c, h, w } = plan.input;
        let result = values.last().map_or_else(|| INPUT.into(), Value::clone);
        Model::finished(name, builder, result, TensorShape::Map { n, c, h, w }, plan.output)
    }

    /// The graph whose output is `result`, which gets the name of the output.
    fn finished(
        name: &str,
        mut builder: Builder,
        result: Value,
        input: TensorShape,
        output: TensorShape,
    ) -> Model {
        let made_by_a_node =
            |builder: &Builder| builder.nodes.iter().any(|node| node.outputs.contains(&result));
        let result = match made_by_a_node(&builder) {
            true => result,
            // An output of a graph is no input of it.
            false => builder.unary("Identity", &result),
        };
        let Builder { mut nodes, tensors, .. } = builder;
        for value in
            nodes.iter_mut().flat_map(|node| node.inputs.iter_mut().chain(&mut node.outputs))
        {
            if *value == result {
                *value = OUTPUT.into();
            }
        }
        Model { name: name.to_owned(), nodes, tensors, input: input.dims(), output: output.dims() }
    }

    /// The weights that it needs, in the order in which [`Model::write`] asks for them.
    pub fn weights(&self) -> impl Iterator<Item = &Weight> {
        self.tensors.iter().filter_map(|tensor| match &tensor.content {
            Content::Weight(weight) | Content::Transposed(weight) => Some(weight),
            Content::Ints(_) | Content::Floats(_) => None,
        })
    }

    /// Number of operators.
    pub fn operators(&self) -> usize {
        self.nodes.len()
    }
}

/// Adds the steps of an op, and gives its output.
fn add_op(plan: &OpPlan, input: &Value, builder: &mut Builder) -> Value {
    let mut values: Vec<Vec<Value>> = Vec::with_capacity(plan.steps.len());
    let value = |source: &Source, values: &[Vec<Value>]| match *source {
        Source::Input => Value::clone(input),
        Source::Node { index, port } => values[index][port].clone(),
    };
    for step in &plan.steps {
        let inputs: Vec<Value> = step.inputs.iter().map(|source| value(source, &values)).collect();
        let shapes: Vec<TensorShape> = step
            .inputs
            .iter()
            .map(|source| match *source {
                Source::Input => plan.input,
                Source::Node { index, port } => plan.steps[index].outputs[port],
            })
            .collect();
        let outputs =
            builder.within(&step.name, |builder| primitive::add(step, &inputs, &shapes, builder));
        values.push(outputs);
    }
    value(&plan.result, &values)
}

fn add_merge(merge: Merge, inputs: &[Value], output: TensorShape, builder: &mut Builder) -> Value {
    match merge {
        Merge::Add => builder.fold("Add", inputs),
        Merge::Mul => builder.fold("Mul", inputs),
        Merge::Concat => primitive::concat(inputs, primitive::channel_axis(output), builder),
    }
}

#[cfg(test)]
mod tests;
