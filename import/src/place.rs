//! From a model's operations on tensors to the catalog's primitives on maps and sequences.
//!
//! Each value of the model becomes a [`Placed`]: a value of the flat graph, and the [`Digits`] that say how the model's
//! tensor lies in it. Reshapes and permutations change the digits only.

mod attention;
mod dense;
mod elementwise;
mod moves;
mod pools;

use std::collections::{BTreeMap, HashMap, HashSet};

use ops_catalog::{Input, Pair, Primitive, TensorShape};

use crate::flat::{Apply, Flat, Given, Problem, Source};
use crate::graph::{Graph, Kind, Node, Operation, Value, ValueId};
use crate::view::{Axis, Digits, extent, whole};

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

/// The model's input as a map: numbers of rows of a table, a sequence and a picture all have that form in a network.
fn model_input(graph: &Graph) -> Result<(ValueId, TensorShape, Placed), Problem> {
    let [id] = graph.inputs[..] else {
        let why = format!(
            "the model has {} inputs, and a network has one: export it with the others as constants",
            graph.inputs.len()
        );
        return Err(problem("the input", "input", &why));
    };
    let value = &graph.values[id];
    let refused = |why: &str| Err(problem(&value.name, "input", why));
    let small = |size: u64| u32::try_from(size).ok().filter(|&size| size > 0);
    let Some(sizes) = value.dims.iter().map(|&size| small(size)).collect::<Option<Vec<u32>>>()
    else {
        return refused(&format!("its shape {:?} is empty or too large", value.dims));
    };
    let map = |n, c, h, w| TensorShape::Map { n, c, h, w };
    // Exporters put a dimension in front of a map without a batch.
    let batched = [&[1], &value.dims[..]].concat();
    let is_batched = graph.nodes.iter().any(|node| {
        node.operation == Operation::Reshape
            && node.inputs == [id]
            && graph.values[node.output].dims == batched
    });
    let (shape, digits) = match (&sizes[..], value.kind) {
        // One picture of one channel: its first dimension is the batch or the channel.
        (&[1, h, w], Kind::Float) if is_batched => {
            let digits = [whole(Axis::Rows, h.into()), whole(Axis::Columns, w.into())];
            (map(1, 1, h, w), Digits([&[vec![]], &digits[..]].concat()))
        }
        (&[first, ..], Kind::Float) if is_batched && first > 1 => {
            return refused(&format!(
                "its shape {:?} has no batch dimension: export the model with one in front, as in {batched:?}",
                value.dims
            ));
        }
        (&[n, c, h, w], Kind::Float) => (map(n, c, h, w), Digits::natural(map(n, c, h, w))),
        // Numbers of rows: a map of one channel and width 1.
        (&[n, l], Kind::Integer) => {
            let batch = whole(Axis::Batch, n.into());
            (map(n, 1, l, 1), Digits(vec![batch, whole(Axis::Rows, l.into())]))
        }
        (&[n, c, l], Kind::Float) => {
            let [batch, channels] =
                [(Axis::Batch, n), (Axis::Channels, c)].map(|(a, s)| whole(a, s.into()));
            (map(n, c, l, 1), Digits(vec![batch, channels, whole(Axis::Rows, l.into())]))
        }
        (&[n, c], Kind::Float) => {
            let batch = whole(Axis::Batch, n.into());
            (map(n, c, 1, 1), Digits(vec![batch, whole(Axis::Channels, c.into())]))
        }
        _ => {
            return refused(&format!(
                "its shape is {:?}, and a network's input is [n, c, h, w], [n, c, length], [n, c] or numbers \
                 [n, length], with the batch n in front: export the model with such an input",
                value.dims
            ));
        }
    };
    Ok((id, shape, Placed { source: Source::Input, digits, rolled: [0, 0] }))
}

/// The size of a network's input.
pub(crate) fn network_input(flat: &Flat) -> Option<Input> {
    match flat.input {
        TensorShape::Map { n, c, h, w } => Some(Input { n, c, h, w }),
        TensorShape::Tokens { .. } => None,
    }
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

    /// The value as a map `[n, c, h, w]`, with a copy if it lies in another order.
    fn as_map(&mut self, placed: &Placed) -> Result<Source, Why> {
        let shape = self.shape(placed);
        if placed.rolled == [0, 0] && matches!(shape, TensorShape::Map { .. }) {
            let natural = Digits::natural(shape);
            // A 1x1 map as `[n, c]`, and the like.
            if placed.digits == natural
                || placed.digits.reshaped(&natural.sizes()).as_ref() == Some(&natural)
            {
                return Ok(placed.source);
            }
            if let Some(groups) = shuffled(&placed.digits, &natural) {
                return self.push(Primitive::Shuffle { groups }, vec![placed.source], vec![]);
            }
        }
        if let Some(source) = self.map_of_tokens(placed)? {
            return Ok(source);
        }
        Err(format!("a tensor in the order {} should be a map [n, c, h, w]", told(&placed.digits)))
    }

    /// A sequence that is read as a map `[n, c, h, w]`, as the map that it was before.
    fn map_of_tokens(&mut self, placed: &Placed) -> Result<Option<Source>, Why> {
        let TensorShape::Tokens { n, c, .. } = self.shape(placed) else { return Ok(None) };
        let &[_, _, h, w] = placed.digits.sizes().as_slice() else { return Ok(None) };
        let natural = Digits::natural(self.shape(placed));
        let in_order = natural
            .permuted(&[0, 2, 1])
            .and_then(|digits| digits.reshaped(&[n.into(), c.into(), h, w]));
        if in_order.as_ref() != Some(&placed.digits) {
            return Ok(None);
        }
        if !self.has_map_of_size(n, [h, w]) {
            return Ok(None);
        }
        let size = Pair { h: number(h)?, w: number(w)? };
        self.push(Primitive::ToMapOf { size }, vec![placed.source], vec![]).map(Some)
    }

    /// Whether there was a map of a height and a width.
    fn has_map_of_size(&self, batch: u32, [height, width]: [u64; 2]) -> bool {
        let fits = |shape: TensorShape| match shape {
            TensorShape::Map { n, h, w, .. } => {
                (n, u64::from(h), u64::from(w)) == (batch, height, width)
            }
            TensorShape::Tokens { .. } => false,
        };
        fits(self.flat.input) || self.flat.steps.iter().any(|step| fits(step.output))
    }

    /// The value as a sequence `[n, l, c]`.
    fn as_tokens(&mut self, placed: &Placed) -> Result<Source, Why> {
        let shape = self.shape(placed);
        let natural = Digits::natural(shape);
        if placed.rolled == [0, 0] {
            match shape {
                TensorShape::Tokens { .. } if placed.digits == natural => return Ok(placed.source),
                TensorShape::Map { .. } if placed.digits == sequence_of(&natural) => {
                    let primitive = Primitive::ToTokens { class_token: false, positions: false };
                    return self.push(primitive, vec![placed.source], vec![]);
                }
                TensorShape::Tokens { .. }
                    if natural.permuted(&[0, 2, 1]).as_ref() == Some(&placed.digits) =>
                {
                    return self.push(Primitive::Transpose, vec![placed.source], vec![]);
                }
                _ => {}
            }
        }
        Err(format!("a tensor in the order {} should be a sequence", told(&placed.digits)))
    }

    /// A primitive of a map that keeps the number of dimensions.
    fn on_map(&mut self, primitive: Primitive<u32>) -> Result<Placed, Why> {
        let input = self.argument(0)?;
        let map = self.as_map(&input)?;
        let source = self.push(primitive, vec![map], vec![])?;
        self.as_wanted(source)
    }

    /// A new value with the dimensions of the node's output.
    fn as_wanted(&self, source: Source) -> Result<Placed, Why> {
        let placed = self.natural(source);
        let digits = placed.digits.reshaped(self.wanted()).ok_or_else(|| {
            format!(
                "its output {} is not of the shape {:?}",
                self.flat.shape(source),
                self.wanted()
            )
        })?;
        Ok(Placed { digits, ..placed })
    }

    /// The result of a primitive that works on each position alone, in the order of its input.
    fn in_order_of(&self, input: &Placed, source: Source) -> Result<Placed, Why> {
        let channels = u64::from(self.flat.shape(source).channels());
        let same = self.flat.shape(input.source).channels() == self.flat.shape(source).channels();
        let digits = if same {
            input.digits.clone()
        } else {
            resized(&input.digits, channels)
                .ok_or("the channels of its input are spread over several dimensions")?
        };
        Ok(Placed { source, digits, rolled: input.rolled })
    }

    /// Whether the last dimension of a value is its channels.
    fn channels_last(&self, placed: &Placed) -> bool {
        let channels = u64::from(self.shape(placed).channels());
        placed.digits.0.last().is_some_and(|last| *last == whole(Axis::Channels, channels))
    }
}

/// The digits with another number of channels, which are one dimension.
fn resized(digits: &Digits, channels: u64) -> Option<Digits> {
    digits.resized(Axis::Channels, channels).or_else(|| {
        // One channel has no digit: the last dimension without any is it.
        let mut digits = digits.clone();
        let last = digits.0.last_mut().filter(|last| last.is_empty())?;
        *last = whole(Axis::Channels, channels);
        Some(digits)
    })
}

/// A map's digits as a sequence: `[n, h * w, c]`.
pub(crate) fn sequence_of(map: &Digits) -> Digits {
    let [batch, channels, rows, columns] = &map.0[..] else { return map.clone() };
    Digits(vec![batch.clone(), [rows.clone(), columns.clone()].concat(), channels.clone()])
}

/// The number of groups, if the digits are those of a map whose channels were shuffled.
fn shuffled(digits: &Digits, natural: &Digits) -> Option<u32> {
    let [batch, channels, rows, columns] = &digits.0[..] else { return None };
    let others = [batch, rows, columns] == [&natural.0[0], &natural.0[2], &natural.0[3]];
    match channels[..] {
        [low, high]
            if others
                && low.axis == Axis::Channels
                && high.axis == Axis::Channels
                && low.stride == 1
                && high.stride == low.size =>
        {
            u32::try_from(high.size).ok()
        }
        _ => None,
    }
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
