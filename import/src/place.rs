//! From a model's operations on tensors to the catalog's primitives on maps and sequences.
//!
//! Each value of the model becomes a [`Placed`]: a value of the flat graph, and the [`Digits`] that say how the model's
//! tensor lies in it. Reshapes and permutations change the digits only.

mod attention;
mod channels;
mod dense;
mod elementwise;
mod input;
mod moves;
mod orders;
mod pools;

use std::collections::{BTreeMap, HashMap, HashSet};

use ops_catalog::{Primitive, TensorShape};

use self::input::model_input;
pub(crate) use self::input::network_input;

use crate::flat::{Apply, Flat, Given, Problem, Source};
use crate::graph::{Graph, Node, Operation, Value, ValueId};
use crate::view::{Axis, Digits, extent};

/// Why a node can't be expressed.
pub(crate) type Why = String;

/// Why a matrix product can't be expressed that is left when attention was found.
const PRODUCT: &str = "a product of two computed values that is no attention";

/// A value of the model in the flat graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) source: Source,
    pub(crate) digits: Digits,
    /// How far the map's rows and columns were rolled, until they are rolled back.
    pub(crate) rolled: [i64; 2],
}

/// The state while the nodes of a model are placed one after the other.
pub(crate) struct Placer<'a> {
    graph: &'a Graph,
    flat: Flat,
    placed: HashMap<ValueId, Placed>,
    /// How many nodes read each value.
    readers: Vec<usize>,
    node: &'a Node,
    /// Differences in numbers that make none in work, each with its first place and how many more there are.
    notes: BTreeMap<&'static str, (String, usize)>,
}

/// Places a model, with notes about what is not quite the same. Nodes that can't be expressed are the problems.
pub(crate) fn place(graph: &Graph) -> Result<(Flat, Vec<String>), Vec<Problem>> {
    let Some(first) = graph.nodes.first() else {
        return Err(vec![problem("the model", "graph", "it computes nothing")]);
    };
    let mut readers = vec![0; graph.values.len()];
    graph.nodes.iter().flat_map(|node| &node.inputs).for_each(|&value| readers[value] += 1);
    let mut problems = vec![];
    let (input, placed) = match model_input(graph) {
        Ok((id, shape, placed)) => (shape, HashMap::from([(id, placed)])),
        Err(refused) => {
            problems.push(refused);
            (TensorShape::Map { n: 1, c: 1, h: 1, w: 1 }, HashMap::new())
        }
    };
    let flat = Flat { input, steps: vec![], output: Source::Input };
    let mut placer = Placer { graph, flat, placed, readers, node: first, notes: BTreeMap::new() };
    for node in &graph.nodes {
        placer.node = node;
        match placer.attempt() {
            Ok(Some(placed)) => {
                placer.placed.insert(node.output, placed);
            }
            Ok(None) => {}
            Err(why) => {
                problems.push(problem(&node.place, &node.operator, &why));
                placer.pass_on();
            }
        }
    }
    if !problems.is_empty() {
        // A node of the file can be several here. The first one says what is wrong with it.
        let mut told = HashSet::new();
        problems.retain(|problem| told.insert((problem.node.clone(), problem.operator.clone())));
        return Err(problems);
    }
    let Some(output) = graph.outputs.first().and_then(|output| placer.placed.get(output)) else {
        return Err(vec![problem("the output", "output", "it does not depend on the input")]);
    };
    placer.flat.output = output.source;
    let notes = placer.notes.into_iter().map(|(note, (place, more))| match more {
        0 => format!("{place}: {note}"),
        more => format!("{place} and {more} more: {note}"),
    });
    Ok((placer.flat.pruned(), notes.collect()))
}

fn problem(node: &str, operator: &str, why: &str) -> Problem {
    Problem { node: node.to_owned(), operator: operator.to_owned(), why: why.to_owned() }
}

impl<'a> Placer<'a> {
    /// Lets an input stand for the output of a node that can't be expressed, if it has the same shape: what depends on
    /// it can have problems of its own, and all are told at once.
    fn pass_on(&mut self) {
        let alike = |id: &&ValueId| self.graph.values[**id].dims == self.wanted();
        let input = self.node.inputs.iter().filter(alike).find_map(|id| self.placed.get(id));
        if let Some(input) = input.cloned() {
            self.placed.insert(self.node.output, input);
        }
    }

    /// The place of the node's output. None if a value that it reads has none because of another problem, and nothing is
    /// known to be wrong with the node itself.
    fn attempt(&mut self) -> Result<Option<Placed>, Why> {
        let missing: Vec<ValueId> = self
            .node
            .inputs
            .iter()
            .copied()
            .filter(|&id| !self.graph.values[id].constant && !self.placed.contains_key(&id))
            .collect();
        if missing.is_empty() {
            return self.operation().map(Some);
        }
        self.possible()?;
        let Some(assumed) = self.assumed(missing[0]) else { return Ok(None) };
        missing.iter().for_each(|&id| drop(self.placed.insert(id, assumed.clone())));
        let placed = self.operation();
        missing.iter().for_each(|id| drop(self.placed.remove(id)));
        placed.map(Some)
    }

    /// The only place in which a value without one could be for the node: the catalog's convolutions and pools have maps,
    /// and sums have values that lie alike.
    fn assumed(&mut self, value: ValueId) -> Option<Placed> {
        let dims = &self.graph.values[value].dims;
        match &self.node.operation {
            Operation::Conv { .. }
            | Operation::ConvTranspose { .. }
            | Operation::Pool { .. }
            | Operation::AdaptivePool(_)
            | Operation::Resize { .. } => {
                let sizes: Option<Vec<u32>> = dims.iter().map(|&size| number(size).ok()).collect();
                let &[n, c, h, w] = sizes?.as_slice() else { return None };
                let shape = TensorShape::Map { n, c, h, w };
                let digits = Digits::natural(shape);
                Some(Placed { source: self.flat.assume(shape), digits, rolled: [0, 0] })
            }
            Operation::Binary(_) => {
                let alike = |id: &&ValueId| self.graph.values[**id].dims == *dims;
                self.node.inputs.iter().filter(alike).find_map(|id| self.placed.get(id)).cloned()
            }
            _ => None,
        }
    }

    /// Refuses what the catalog does not have wherever its inputs lie.
    fn possible(&self) -> Result<(), Why> {
        match &self.node.operation {
            Operation::Unsupported { why } => Err(why.clone()),
            Operation::Apply(function) => elementwise::primitive_of(*function).map(drop),
            Operation::Binary(binary) => self.combination(*binary).map(drop),
            Operation::LayerNorm { dimensions, .. } => dense::is_over_channels(*dimensions),
            Operation::MatMul => Err(PRODUCT.into()),
            _ => Ok(()),
        }
    }

    fn operation(&mut self) -> Result<Placed, Why> {
        match &self.node.operation {
            Operation::Conv { .. } => self.conv(),
            Operation::ConvTranspose { .. } => self.conv_transpose(),
            Operation::Linear { transposed } => self.linear(*transposed),
            Operation::MatMul => Err(PRODUCT.into()),
            Operation::BatchNorm { epsilon } => self.batch_norm(*epsilon),
            Operation::LayerNorm { dimensions, .. } => self.layer_norm(*dimensions),
            Operation::RmsNorm { .. } => self.rms_norm(),
            Operation::GroupNorm { groups, .. } => self.group_norm(*groups),
            Operation::Apply(function) => self.apply(*function),
            Operation::Prelu => self.prelu(),
            Operation::Binary(binary) => self.binary(*binary),
            Operation::Reduce { reduction, axes, .. } => self.reduce(*reduction, axes),
            Operation::Softmax { axis } => self.softmax(*axis),
            Operation::Pool { .. } => self.pool(),
            Operation::AdaptivePool(pooling) => self.adaptive_pool(*pooling),
            Operation::Reshape => self.reshape(),
            Operation::Permute { order } => self.permute(order),
            Operation::Expand => self.expand(),
            Operation::Concat { axis } => self.concat(*axis),
            Operation::Slice { axis, start, step } => self.slice(*axis, *start, *step),
            Operation::Pad { before, after } => self.pad(before, after),
            Operation::Resize { linear } => self.resize(*linear),
            Operation::Roll { shifts } => self.roll(shifts),
            Operation::Attention { causal, scale, cosine } => {
                self.attention(*causal, *scale, *cosine)
            }
            Operation::ResponseNorm => self.response_norm(),
            Operation::Normalize => {
                Err("vectors of length 1, which the catalog has in attention by cosines only"
                    .into())
            }
            Operation::Rotary => self.rotary(),
            Operation::Embedding => self.embedding(),
            Operation::PixelShuffle { block } => {
                self.on_map(Primitive::DepthToSpace { block: *block })
            }
            Operation::PixelUnshuffle { block } => {
                self.on_map(Primitive::SpaceToDepth { block: *block })
            }
            Operation::ChannelShuffle { groups } => {
                self.on_map(Primitive::Shuffle { groups: *groups })
            }
            Operation::Unsupported { why } => Err(why.clone()),
            Operation::Dependent => Err("it depends on something that is not supported".into()),
        }
    }

    /// Notes a difference in numbers.
    fn note(&mut self, note: &'static str) {
        let place = self.node.place.clone();
        self.notes.entry(note).and_modify(|(_, more)| *more += 1).or_insert((place, 0));
    }

    /// A description of an input. For a constant it has the name of a weight.
    fn value(&self, index: usize) -> Result<&'a Value, Why> {
        let id = self.node.inputs.get(index).ok_or_else(|| format!("input {index} is missing"))?;
        Ok(&self.graph.values[*id])
    }

    /// A constant input.
    fn weight(&self, index: usize) -> Result<&'a Value, Why> {
        let value = self.value(index)?;
        if value.constant {
            return Ok(value);
        }
        Err(format!("`{}` is computed, and the catalog has only stored weights here", value.name))
    }

    /// A constant input, if there is one.
    fn optional_weight(&self, index: usize) -> Result<Option<&'a Value>, Why> {
        if index < self.node.inputs.len() { self.weight(index).map(Some) } else { Ok(None) }
    }

    /// A computed input.
    fn argument(&self, index: usize) -> Result<Placed, Why> {
        let id = self.node.inputs.get(index).ok_or_else(|| format!("input {index} is missing"))?;
        self.placed
            .get(id)
            .cloned()
            .ok_or_else(|| format!("`{}` is a constant here", self.graph.values[*id].name))
    }

    /// The dimensions of the output.
    fn wanted(&self) -> &'a [u64] {
        &self.graph.values[self.node.output].dims
    }

    fn shape(&self, placed: &Placed) -> TensorShape {
        self.flat.shape(placed.source)
    }

    /// Adds a primitive.
    fn push(
        &mut self,
        primitive: Primitive<u32>,
        inputs: Vec<Source>,
        weights: Vec<(String, Given)>,
    ) -> Result<Source, Why> {
        let moves = matches!(
            primitive,
            Primitive::Shuffle { .. }
                | Primitive::Flatten
                | Primitive::Transpose
                | Primitive::ToTokens { class_token: false, positions: false }
        );
        if moves {
            // Several readers of a value share one copy.
            let same = self.flat.steps.iter().rposition(|step| {
                step.inputs == inputs && step.apply == Apply::Primitive(primitive.clone())
            });
            if let Some(step) = same {
                return Ok(Source::Step(step));
            }
        }
        let place = (self.node.place.as_str(), self.node.operator.as_str());
        self.flat.push(primitive, inputs, weights, place).map_err(|e| e.to_string())
    }

    /// A new value as it is.
    fn natural(&self, source: Source) -> Placed {
        let digits = Digits::natural(self.flat.shape(source));
        Placed { source, digits, rolled: [0, 0] }
    }
}

/// A map's digits as a sequence: `[n, h * w, c]`.
pub(crate) fn sequence_of(map: &Digits) -> Digits {
    let [batch, channels, rows, columns] = &map.0[..] else { return map.clone() };
    Digits(vec![batch.clone(), [rows.clone(), columns.clone()].concat(), channels.clone()])
}

/// Digits for a message: `[n, h*w, c]`.
pub(crate) fn told(digits: &Digits) -> String {
    let name = |axis: Axis| match axis {
        Axis::Batch => "n",
        Axis::Channels => "c",
        Axis::Rows => "h",
        Axis::Columns => "w",
        Axis::Tokens => "l",
        Axis::Repeated => "repeated",
    };
    let dims: Vec<String> = digits
        .0
        .iter()
        .map(|digits| match extent(digits) {
            1 => "1".to_owned(),
            _ => digits
                .iter()
                .map(|digit| match digit.stride {
                    1 => format!("{}:{}", name(digit.axis), digit.size),
                    stride => format!("{}:{}/{stride}", name(digit.axis), digit.size),
                })
                .collect::<Vec<_>>()
                .join("*"),
        })
        .collect();
    format!("[{}]", dims.join(", "))
}

/// A size of the model as the catalog's.
pub(crate) fn number(size: u64) -> Result<u32, Why> {
    u32::try_from(size).map_err(|_| format!("a size of {size} is too large"))
}
