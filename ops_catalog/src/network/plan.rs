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
        let merged = match (inputs.as_slice(), node.merge) {
            ([single], _) => *single,
            (_, Merge::Add | Merge::Mul) => {
                self.combined(&inputs, node.merge, &node.place, catalog)?
            }
            (_, Merge::Concat) => self.concatenated(inputs, &node.place, catalog)?,
        };
        let input = self.shape_of(merged);
        let fits = match node.op.def().input {
            Layout::Map => matches!(input, TensorShape::Map { .. }),
            Layout::Tokens => matches!(input, TensorShape::Tokens { .. }),
        };
        if !fits {
            let wanted = match node.op.def().input {
                Layout::Map => "a map [n, c, h, w]",
                Layout::Tokens => "a sequence [n, tokens, c]",
            };
            return Err(Invalid::new(
                node.op.name(),
                format!("takes {wanted}, but its input is {input}"),
            ));
        }
        let shape = key_shape(input, input.channels(), node.c_out, node.stride);
        let plan = node.op.at(&shape)?;
        Ok(self.push(&node.op, shape, plan, vec![merged], None, &node.place))
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

    /// Adds or multiplies values two at a time, so that each merge can be a row of a table.
    fn combined(
        &mut self,
        inputs: &[Value],
        merge: Merge,
        place: &str,
        catalog: &Catalog,
    ) -> Result<Value, Invalid> {
        let op = catalog.op(merge.op_name())?;
        let done = if merge == Merge::Mul { "multiplied" } else { "added" };
        let mut result = inputs[0];
        for &value in &inputs[1..] {
            let (a, b) = (self.shape_of(result), self.shape_of(value));
            if a != b {
                return Err(Invalid::new("inputs", format!("are {done}, but differ: {a} and {b}")));
            }
            let parts = a.channels().saturating_mul(2);
            result = self.merge(op, parts, a, vec![result, value], merge, place)?;
        }
        Ok(result)
    }

    /// Concatenates all parts at once: the op is one copy, whatever their number.
    fn concatenated(
        &mut self,
        inputs: Vec<Value>,
        place: &str,
        catalog: &Catalog,
    ) -> Result<Value, Invalid> {
        let op = catalog.op(Merge::Concat.op_name())?;
        let shapes: Vec<TensorShape> = inputs.iter().map(|&value| self.shape_of(value)).collect();
        let whole = concatenated(&shapes).map_err(|e| e.within("inputs"))?;
        self.merge(op, whole.channels(), whole, inputs, Merge::Concat, place)
    }

    fn merge(
        &mut self,
        op: &Arc<Op>,
        channels_in: u32,
        merged: TensorShape,
        inputs: Vec<Value>,
        merge: Merge,
        place: &str,
    ) -> Result<Value, Invalid> {
        let shape = key_shape(merged, channels_in, merged.channels(), 1);
        let mut plan = op.at(&shape)?;
        // The catalog's merging ops take maps. Sequences are merged elementwise in the same way.
        plan.output = merged;
        Ok(self.push(op, shape, plan, inputs, Some(merge), place))
    }
}

fn key_shape(input: TensorShape, channels_in: u32, channels_out: u32, stride: u32) -> Shape {
    let (input_h, input_w) = input.rows();
    Shape { batch: input.batch(), input_h, input_w, channels_in, channels_out, stride }
}
