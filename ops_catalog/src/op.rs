//! Ops as data: a definition, its checks, its digest, and its plan at a shape.

mod wiring;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use self::wiring::{node_label, node_name, wire};
use crate::digest::{self, DigestError};
use crate::key::{OpKey, Shape, check_op_name};
use crate::primitive::{Cost, Primitive};
use crate::size::{Size, Variable};
use crate::tensor::TensorShape;
use crate::{Invalid, text};

/// The most nodes that a definition may have.
pub const MAX_NODES: usize = 64;

/// The kind of tensor that an op takes.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// A feature map, `[n, c, h, w]`.
    #[default]
    Map,
    /// A sequence of tokens, `[n, l, c]`.
    Tokens,
}

/// A condition on the shape under which a node is part of the op. A node whose condition does not hold
/// passes its first input through, at no cost. So one definition covers a residual block with and
/// without its shortcut.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// The op's stride is 1, and its input and output have the same channels.
    KeepsShape,
    /// The opposite.
    ChangesShape,
}

impl When {
    fn holds(self, shape: &Shape) -> bool {
        let keeps = shape.stride == 1 && shape.channels_in == shape.channels_out;
        keeps == (self == When::KeepsShape)
    }
}

/// One node of a definition.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// A name for later nodes to refer to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What it reads: `input`, or ids of earlier nodes. The node before it when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<Vec<String>>,
    /// When it is part of the op. Always when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<When>,
    /// What it computes.
    #[cfg_attr(feature = "openapi", schema(value_type = serde_json::Value))]
    pub apply: Primitive,
}

/// An op as its author writes it: a small graph of primitives. The last node is the output.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpDef {
    /// The `op_type` of its rows.
    pub name: String,
    /// What it is and where it comes from, for a reader.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub doc: String,
    /// Other names that architectures may use for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// The kind of tensor that it takes.
    #[serde(default)]
    pub input: Layout,
    /// The stride in the short form of a network, which has no strides; 1 when not given.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub usual_stride: u32,
    /// The graph.
    pub nodes: Vec<Node>,
}

impl OpDef {
    /// Reads one definition from YAML (of which JSON is a part).
    ///
    /// # Errors
    /// Syntax errors and unknown fields, with line and column.
    pub fn from_yaml(text: &str) -> Result<OpDef, Invalid> {
        text::read(text)
    }
}

fn one() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_one(n: &u32) -> bool {
    *n == 1
}

/// Where a node's input comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The op's own input.
    Input,
    /// An output of an earlier node; `port` is 0 except for the parts of a `split`.
    Node {
        /// Index of the node.
        index: usize,
        /// Which of its outputs.
        port: usize,
    },
}

/// A hash of the computation of an op: its wiring and primitives, without its name and prose. So two different blocks
/// with one name never share a row. The text form is `op1-` and 32 hexadecimal digits. The number changes with the
/// meaning of the hash, so digests of different meanings always differ.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct OpDigest(String);

#[cfg(feature = "openapi")]
crate::openapi::text_schema!(OpDigest, "A hash of an op's definition.");

impl fmt::Display for OpDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl OpDigest {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for OpDigest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        digest::read("op1-", text).map(OpDigest)
    }
}

impl TryFrom<String> for OpDigest {
    type Error = DigestError;
    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

/// A definition that has been checked: its names resolve, and it is a graph without cycles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Op {
    def: OpDef,
    wiring: Vec<Vec<Source>>,
    /// Each node's [`Step::name`].
    names: Vec<Arc<str>>,
    digest: OpDigest,
}

/// One primitive of an [`OpPlan`], with every size a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The node's id, or its primitive and its index among the nodes, as in `conv2d-2`. It is unique in its op and the
    /// same at every shape, so weights have it in their names.
    pub name: Arc<str>,
    /// Its primitive.
    pub primitive: Primitive<u32>,
    /// Its inputs, by index into [`OpPlan::steps`].
    pub inputs: Vec<Source>,
    /// Shapes of its outputs.
    pub outputs: Vec<TensorShape>,
    /// Its cost.
    pub cost: Cost,
    /// Whether it is a convolution into which a batch norm was folded. Definitions are in deployed form, so this holds
    /// for each biased convolution, unless the definition has a normalization of its own.
    pub folded_norm: bool,
}

/// An op at a shape. The agent lowers it, and costs are derived from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpPlan {
    /// Shape of the input tensor.
    pub input: TensorShape,
    /// Primitives in an order in which they can run, without nodes whose condition does not hold.
    pub steps: Vec<Step>,
    /// The output.
    pub result: Source,
    /// Shape of the output tensor.
    pub output: TensorShape,
    /// Sum of the steps' costs.
    pub cost: Cost,
}

impl Op {
    /// Checks a definition.
    ///
    /// # Errors
    /// Names the op, the node and the problem: a bad name; an id that is unknown, used twice or of a later node; a
    /// wrong number of inputs; an unused node; a usual stride that the op cannot have.
    pub fn new(def: OpDef) -> Result<Op, Invalid> {
        check_op_name(&def.name)?;
        let in_op = |e: Invalid| e.within(format!("op {}", def.name));
        for alias in &def.aliases {
            check_op_name(alias).map_err(in_op)?;
        }
        let wiring = wire(&def).map_err(in_op)?;
        let digest = digest(&def, &wiring);
        let names = def.nodes.iter().enumerate().map(|(index, node)| node_name(index, node));
        let op = Op { names: names.collect(), def, wiring, digest };
        let stride = op.def.usual_stride;
        if stride == 0 || (stride != 1 && !op.mentions(Variable::Stride)) {
            return Err(Invalid::new(
                format!("op {}, usual_stride", op.name()),
                format!("is {stride}, but no node has the size `stride`, so the stride is 1"),
            ));
        }
        Ok(op)
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.def.name
    }

    /// The definition.
    pub fn def(&self) -> &OpDef {
        &self.def
    }

    /// The digest of the definition.
    pub fn digest(&self) -> &OpDigest {
        &self.digest
    }

    /// Whether the definition depends on a variable.
    pub fn mentions(&self, variable: Variable) -> bool {
        self.def
            .nodes
            .iter()
            .flat_map(|node| node.apply.sizes())
            .any(|size: Size| size.mentions(variable))
    }

    /// The key of this op at a shape.
    pub fn key(&self, shape: Shape) -> OpKey {
        OpKey { op: self.def.name.clone(), shape }
    }

    /// The op at a shape.
    ///
    /// # Errors
    /// When the shape is impossible for this op; the message names the node and the sizes.
    pub fn at(&self, shape: &Shape) -> Result<OpPlan, Invalid> {
        self.plan(shape).map_err(|e| e.within(self.key(*shape)))
    }

    fn plan(&self, shape: &Shape) -> Result<OpPlan, Invalid> {
        let input = self.input_at(shape)?;
        let mut steps: Vec<Step> = Vec::with_capacity(self.def.nodes.len());
        let mut cost = Cost::default();
        let normalizes = self.normalizes();
        // The step of each node's value, and the node of each step.
        let mut places: Vec<Source> = Vec::with_capacity(self.def.nodes.len());
        let mut origins: Vec<usize> = Vec::with_capacity(self.def.nodes.len());
        for (index, (node, wires)) in self.def.nodes.iter().zip(&self.wiring).enumerate() {
            let inputs: Vec<Source> = wires.iter().map(|&wire| moved(wire, &places)).collect();
            if node.when.is_some_and(|when| !when.holds(shape)) {
                places.push(inputs[0]);
                continue;
            }
            let at_node = |e: Invalid| e.within(node_label(index, node));
            let mut primitive = node.apply.at(shape).map_err(at_node)?;
            let shapes: Vec<TensorShape> =
                inputs.iter().map(|&source| shape_of(source, input, &steps)).collect();
            let (outputs, step_cost) = primitive.infer(&shapes).map_err(at_node)?;
            cost += step_cost;
            places.push(Source::Node { index: steps.len(), port: 0 });
            origins.push(index);
            let folded_norm = primitive.can_fold_norm() && !normalizes;
            let name = Arc::clone(&self.names[index]);
            steps.push(Step { name, primitive, inputs, outputs, cost: step_cost, folded_norm });
        }
        let result = *places.last().unwrap_or(&Source::Input);
        if let Some(step) = unused(&steps, result) {
            let index = origins[step];
            return Err(Invalid::new(
                node_label(index, &self.def.nodes[index]),
                "what uses its output has a `when` that does not hold at this shape: give it the same",
            ));
        }
        let output = shape_of(result, input, &steps);
        if output.channels() != shape.channels_out {
            return Err(Invalid::here(format!(
                "{} gives {} channels here, so channels_out is {}, not {}",
                self.name(),
                output.channels(),
                output.channels(),
                shape.channels_out
            )));
        }
        Ok(OpPlan { input, steps, result, output, cost })
    }

    /// Whether the definition has a normalization of its own.
    fn normalizes(&self) -> bool {
        self.def.nodes.iter().any(|node| node.apply.is_norm())
    }

    /// The input tensor at a shape, after the checks that do not depend on the nodes.
    fn input_at(&self, shape: &Shape) -> Result<TensorShape, Invalid> {
        shape.check()?;
        if shape.stride != 1 && !self.mentions(Variable::Stride) {
            return Err(Invalid::here(format!(
                "{} has no stride, so its stride is 1, not {}",
                self.name(),
                shape.stride
            )));
        }
        let Shape { batch: n, channels_in: c, input_h: h, input_w: w, .. } = *shape;
        match self.def.input {
            Layout::Map => TensorShape::Map { n, c, h, w }.checked(),
            Layout::Tokens if w == 1 => TensorShape::Tokens { n, l: h, c }.checked(),
            Layout::Tokens => Err(Invalid::here(format!(
                "{} takes a sequence: write its length as input_h and 1 as input_w",
                self.name()
            ))),
        }
    }
}

/// A step whose value does not reach the result. This happens if only a conditional node reads it.
///
/// A step is only read by later ones, so a step that any other reads leads to the result.
fn unused(steps: &[Step], result: Source) -> Option<usize> {
    let mut used = vec![false; steps.len()];
    for source in steps.iter().flat_map(|step| &step.inputs).chain([&result]) {
        if let Source::Node { index, .. } = *source {
            used[index] = true;
        }
    }
    used.iter().position(|used| !used)
}

/// A wire of the definition as a wire of the plan.
fn moved(wire: Source, places: &[Source]) -> Source {
    match wire {
        Source::Input => Source::Input,
        Source::Node { index, port } => match places[index] {
            Source::Node { index, port: 0 } => Source::Node { index, port },
            // The node was skipped, and the value that it passes on can be one part of a split.
            other => other,
        },
    }
}

fn shape_of(source: Source, input: TensorShape, steps: &[Step]) -> TensorShape {
    match source {
        Source::Input => input,
        Source::Node { index, port } => steps[index].outputs[port],
    }
}

/// SHA-256 over the resolved graph, the first 16 bytes in hexadecimal.
fn digest(def: &OpDef, wiring: &[Vec<Source>]) -> OpDigest {
    #[derive(Serialize)]
    struct Resolved<'a> {
        input: Layout,
        nodes: Vec<(&'a Primitive, &'a [Source], Option<When>)>,
    }
    let nodes = def
        .nodes
        .iter()
        .zip(wiring)
        .map(|(node, wires)| (&node.apply, wires.as_slice(), node.when))
        .collect();
    let resolved = Resolved { input: def.input, nodes };
    let text = serde_json::to_string(&resolved).expect("plain data serializes to JSON");
    // The prefix separates these hashes from others, and from a later meaning of the primitives.
    let hash = Sha256::new_with_prefix(b"latlas op 1\n").chain_update(text).finalize();
    OpDigest(digest::write("op1-", &hash))
}
