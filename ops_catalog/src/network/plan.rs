//! Networks as op keys.

use std::sync::Arc;

use super::{Input, Merge, Network, NetworkNode, Value};
use crate::key::{OpKey, Shape};
use crate::op::{Layout, Op, OpPlan};
use crate::primitive::Cost;
use crate::tensor::{TensorShape, concatenated};
use crate::{Catalog, Invalid};

/// One op of a [`NetworkPlan`].
#[derive(Debug, Clone)]
pub struct PlanStep {
    /// Its row in a table.
    pub key: OpKey,
    /// Its op.
    pub op: Arc<Op>,
    /// Its primitives.
    pub plan: OpPlan,
    /// Its inputs, by index into the steps: one value, or the parts of a merge.
    pub inputs: Vec<Value>,
    /// The merge of several values, if it is one: the op `Add`, `Mul` or `Concat` of the catalog.
    pub merge: Option<Merge>,
    /// Its place in the author's text.
    pub place: String,
}

/// A network as op keys: the form for look-ups, costs and execution.
#[derive(Debug, Clone)]
pub struct NetworkPlan {
    /// Its input.
    pub input: Input,
    /// Ops in an order in which they can run.
    pub steps: Vec<PlanStep>,
    /// Shape of its output, which is the output of the last step.
    pub output: TensorShape,
    /// Sum of the steps' costs.
    pub cost: Cost,
}

impl Network {
    /// The network as op keys, with every shape inferred.
    ///
    /// # Errors
    /// Names the layer whose shape is impossible or whose inputs do not fit together.
    pub fn plan(&self, catalog: &Catalog) -> Result<NetworkPlan, Invalid> {
        self.steps(catalog).map_err(|e| self.labelled(e))
    }

    fn steps(&self, catalog: &Catalog) -> Result<NetworkPlan, Invalid> {
        let mut plan = NetworkPlan {
            input: self.input,
            steps: Vec::with_capacity(self.nodes.len()),
            output: self.input.shape(),
            cost: Cost::default(),
        };
        // The step of each node's value; merges are steps too.
        let mut places: Vec<Value> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let place = |input: &Value| match *input {
                Value::Input => Value::Input,
                Value::Of(index) => places[index],
            };
            let inputs = node.inputs.iter().map(place).collect();
            let value = plan.add(node, inputs, catalog).map_err(|e| e.within(&node.place))?;
            places.push(value);
        }
        plan.output = plan.shape_of(places[self.output]);
        Ok(plan)
    }
}

impl NetworkPlan {
    fn shape_of(&self, value: Value) -> TensorShape {
        match value {
            Value::Input => self.input.shape(),
            Value::Of(step) => self.steps[step].plan.output,
        }
    }

    fn add(
        &mut self,
        node: &NetworkNode,
        inputs: Vec<Value>,
        catalog: &Catalog,
    ) -> Result<Value, Invalid> {
        let shapes: Vec<TensorShape> = inputs.iter().map(|&value| self.shape_of(value)).collect();
        let Merged { shape: input, op: merging, shapes } = merged(node.merge, &shapes, catalog)?;
        let mut value = inputs[0];
        for (index, shape) in shapes.into_iter().enumerate() {
            let parts = match node.merge {
                Merge::Add | Merge::Mul => vec![value, inputs[index + 1]],
                Merge::Concat => inputs.clone(),
            };
            let op = merging.expect("several values are merged by an op");
            let mut plan = op.at(&shape)?;
            // The catalog's merging ops take maps. Sequences are merged elementwise in the same way.
            plan.output = input;
            value = self.push(op, shape, plan, parts, Some(node.merge), &node.place);
        }
        let shape = key_shape(&node.op, input, node.c_out, node.stride)?;
        let plan = node.op.at(&shape)?;
        Ok(self.push(&node.op, shape, plan, vec![value], None, &node.place))
    }

    fn push(
        &mut self,
        op: &Arc<Op>,
        shape: Shape,
        plan: OpPlan,
        inputs: Vec<Value>,
        merge: Option<Merge>,
        place: &str,
    ) -> Value {
        self.cost += plan.cost;
        self.steps.push(PlanStep {
            key: op.key(shape),
            op: Arc::clone(op),
            plan,
            inputs,
            merge,
            place: place.to_owned(),
        });
        Value::Of(self.steps.len() - 1)
    }
}

/// What a node reads, after its inputs became one value.
pub(crate) struct Merged<'a> {
    /// The value.
    pub shape: TensorShape,
    /// The op that merges; none for a single input.
    op: Option<&'a Arc<Op>>,
    /// The shape of the op in each merge.
    shapes: Vec<Shape>,
}

impl Merged<'_> {
    /// The merges, in running order. Each gives a value of the shape of the whole.
    pub fn steps(&self) -> impl Iterator<Item = (&Arc<Op>, Shape)> {
        self.op.into_iter().flat_map(|op| self.shapes.iter().map(move |&shape| (op, shape)))
    }
}

/// How the inputs of a node become one value. They are added or multiplied two at a time, so that each merge can be a
/// row of a table; a concatenation is one copy, whatever the number of parts.
///
/// # Errors
/// When the inputs do not fit together.
pub(crate) fn merged<'a>(
    merge: Merge,
    inputs: &[TensorShape],
    catalog: &'a Catalog,
) -> Result<Merged<'a>, Invalid> {
    let first = inputs[0];
    if inputs.len() == 1 {
        return Ok(Merged { shape: first, op: None, shapes: vec![] });
    }
    let op = Some(catalog.op(merge.op_name())?);
    if merge == Merge::Concat {
        let shape = concatenated(inputs).map_err(|e| e.within("inputs"))?;
        return Ok(Merged { shape, op, shapes: vec![shape_at(shape, shape.channels(), 1)] });
    }
    if let Some(other) = inputs.iter().find(|&&shape| shape != first) {
        let done = if merge == Merge::Mul { "multiplied" } else { "added" };
        let problem = format!("are {done}, but differ: {first} and {other}");
        return Err(Invalid::new("inputs", problem));
    }
    let of_both = first.with_channels(first.channels().saturating_mul(2));
    let shape = shape_at(of_both, first.channels(), 1);
    Ok(Merged { shape: first, op, shapes: vec![shape; inputs.len() - 1] })
}

/// The shape of the op of a node that reads this value.
///
/// # Errors
/// When the op takes another kind of value.
pub(crate) fn key_shape(
    op: &Op,
    input: TensorShape,
    c_out: u32,
    stride: u32,
) -> Result<Shape, Invalid> {
    let (fits, wanted) = match op.def().input {
        Layout::Map => (matches!(input, TensorShape::Map { .. }), "a map [n, c, h, w]"),
        Layout::Tokens => {
            (matches!(input, TensorShape::Tokens { .. }), "a sequence [n, tokens, c]")
        }
    };
    if !fits {
        let problem = format!("takes {wanted}, but its input is {input}");
        return Err(Invalid::new(op.name(), problem));
    }
    Ok(shape_at(input, c_out, stride))
}

fn shape_at(input: TensorShape, channels_out: u32, stride: u32) -> Shape {
    let (input_h, input_w) = input.rows();
    let (batch, channels_in) = (input.batch(), input.channels());
    Shape { batch, input_h, input_w, channels_in, channels_out, stride }
}
