//! Whether an op computes just what some steps compute.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ops_catalog::{
    Dimension, Layout, Op, OpPlan, Primitive, Shape, Source as OfPlan, TensorShape, When,
};

use super::primitive;
use crate::flat::{Flat, Source};

/// The most comparisons for one op, since the inputs of sums and products can be in any order.
const MOST_COMPARISONS: usize = 4000;

/// How often an op has each primitive.
type Counts = BTreeMap<&'static str, usize>;

/// An op that steps are compared with.
#[derive(Debug, Clone)]
pub(super) struct Known {
    op: Arc<Op>,
    /// Its primitives where it keeps the shape of its input, and elsewhere.
    counts: [Counts; 2],
}

impl Known {
    /// None for the ops that bring several values together, which are nodes of a network and never blocks.
    pub(super) fn new(op: &Arc<Op>) -> Option<Known> {
        if ["Add", "Mul", "Concat"].contains(&op.name()) {
            return None;
        }
        let counts = [When::KeepsShape, When::ChangesShape].map(|holds| {
            let mut counts = Counts::new();
            for node in &op.def().nodes {
                if node.when.is_some_and(|when| when != holds) {
                    continue;
                }
                let (name, times) = match &node.apply {
                    Primitive::Split { parts } => ("slice", *parts as usize),
                    Primitive::Identity => continue,
                    other => (other.name(), 1),
                };
                *counts.entry(name).or_default() += times;
            }
            counts
        });
        Some(Known { op: Arc::clone(op), counts })
    }
}

/// An op that computes some steps.
#[derive(Debug, Clone)]
pub(super) struct Matched {
    pub(super) op: Arc<Op>,
    pub(super) c_out: u32,
    pub(super) stride: u32,
    /// Steps of the flat graph, and the names of those in the op's plan.
    pub(super) steps: Vec<(usize, Arc<str>)>,
}

/// The op among `known` that computes `steps` of a value `entry`. The last step is the output.
pub(super) fn matched(
    flat: &Flat,
    steps: &[usize],
    input: TensorShape,
    entry: Source,
    known: &[Known],
) -> Option<Matched> {
    let output = steps.last().map_or(entry, |&step| Source::Step(step));
    let c_out = flat.shape(output).channels();
    let mut counts = Counts::new();
    steps.iter().for_each(|&step| *counts.entry(primitive(flat, step).name()).or_default() += 1);
    let keeps = c_out == input.channels();
    let layout = layout(input);
    let mut strides = vec![1];
    strides.extend(steps.iter().filter_map(|&step| square_stride(primitive(flat, step))));
    strides.sort_unstable();
    strides.dedup();
    let fits = |known: &&Known| known.op.def().input == layout && known.counts.contains(&counts);
    known.iter().filter(fits).find_map(|known| {
        strides.iter().find_map(|&stride| {
            let variant = usize::from(!(keeps && stride == 1));
            if known.counts[variant] != counts {
                return None;
            }
            let plan = known.op.at(&op_shape(input, c_out, stride)).ok()?;
            let pairs = isomorphic(flat, steps, entry, &plan)?;
            let steps = pairs
                .into_iter()
                .map(|(step, of_plan)| (step, Arc::clone(&plan.steps[of_plan].name)));
            Some(Matched { op: Arc::clone(&known.op), c_out, stride, steps: steps.collect() })
        })
    })
}

/// The op that passes its input on.
pub(super) fn unchanged(input: TensorShape, known: &[Known]) -> Option<Matched> {
    let layout = layout(input);
    let fits = |known: &&Known| {
        known.op.def().input == layout && known.counts.iter().all(Counts::is_empty)
    };
    let op = Arc::clone(&known.iter().find(fits)?.op);
    Some(Matched { op, c_out: input.channels(), stride: 1, steps: vec![] })
}

/// The layout of an op that takes such a value.
pub(super) fn layout(input: TensorShape) -> Layout {
    match input {
        TensorShape::Map { .. } => Layout::Map,
        TensorShape::Tokens { .. } => Layout::Tokens,
    }
}

/// The shape of an op with this input.
pub(super) fn op_shape(input: TensorShape, channels_out: u32, stride: u32) -> Shape {
    let (batch, input_h, input_w) = match input {
        TensorShape::Map { n, h, w, .. } => (n, h, w),
        TensorShape::Tokens { n, l, .. } => (n, l, 1),
    };
    Shape { batch, input_h, input_w, channels_in: input.channels(), channels_out, stride }
}

/// The stride of a primitive, if it is above 1 and the same for height and width.
pub(super) fn square_stride(primitive: &Primitive<u32>) -> Option<u32> {
    let stride = match primitive {
        Primitive::Conv2d { stride, .. }
        | Primitive::ConvTranspose2d { stride, .. }
        | Primitive::MaxPool { stride, .. }
        | Primitive::AvgPool { stride, .. }
        | Primitive::Zero { stride, .. } => *stride,
        Primitive::Conv1d { stride, .. } => return Some(*stride).filter(|&stride| stride > 1),
        _ => return None,
    };
    (stride.h == stride.w && stride.h > 1).then_some(stride.h)
}

/// Pairs of steps of the flat graph and of a plan, if both are the same computation.
fn isomorphic(
    flat: &Flat,
    steps: &[usize],
    entry: Source,
    plan: &OpPlan,
) -> Option<Vec<(usize, usize)>> {
    let mut pairing = Pairing {
        flat,
        plan,
        entry,
        pairs: HashMap::new(),
        taken: HashMap::new(),
        left: MOST_COMPARISONS,
    };
    let output = Source::Step(*steps.last()?);
    if !pairing.pair(plan.result, output) || pairing.pairs.len() != steps.len() {
        return None;
    }
    let mut pairs: Vec<(usize, usize)> =
        pairing.pairs.into_iter().map(|((of_plan, _), step)| (step, of_plan)).collect();
    pairs.sort_unstable();
    Some(pairs)
}

struct Pairing<'a> {
    flat: &'a Flat,
    plan: &'a OpPlan,
    entry: Source,
    /// The step for each output of a plan's step.
    pairs: HashMap<(usize, usize), usize>,
    /// The other way round.
    taken: HashMap<usize, (usize, usize)>,
    /// Comparisons that are left.
    left: usize,
}

impl Pairing<'_> {
    /// Whether a value of the plan and a value of the graph are the same, as far as the pairs until now tell.
    fn pair(&mut self, of_plan: OfPlan, source: Source) -> bool {
        let Some(left) = self.left.checked_sub(1) else { return false };
        self.left = left;
        let OfPlan::Node { index, port } = of_plan else { return source == self.entry };
        let step = &self.plan.steps[index];
        if step.primitive == Primitive::Identity {
            return self.pair(step.inputs[0], source);
        }
        let Source::Step(own) = source else { return false };
        if source == self.entry {
            return false;
        }
        let key = (index, port);
        match (self.pairs.get(&key), self.taken.get(&own)) {
            (None, None) => {}
            (Some(&paired), _) => return paired == own,
            (None, Some(_)) => return false,
        }
        if !self.same(index, port, own) {
            return false;
        }
        self.pairs.insert(key, own);
        self.taken.insert(own, key);
        let inputs = self.flat.steps[own].inputs.clone();
        let commutes = matches!(step.primitive, Primitive::Add | Primitive::Mul);
        self.all(&step.inputs.clone(), &inputs, commutes)
    }

    /// Whether one output of a plan's step is computed as a step of the graph is.
    fn same(&self, index: usize, port: usize, own: usize) -> bool {
        let step = &self.plan.steps[index];
        let found = primitive(self.flat, own);
        let Primitive::Split { .. } = step.primitive else { return *found == step.primitive };
        let start: u32 = step.outputs[..port].iter().map(TensorShape::channels).sum();
        let length = step.outputs[port].channels();
        *found == Primitive::Slice { along: Dimension::Channels, start, length, step: 1 }
    }

    /// Whether all inputs are the same, in some order if it makes no difference.
    fn all(&mut self, of_plan: &[OfPlan], sources: &[Source], any_order: bool) -> bool {
        if of_plan.len() != sources.len() {
            return false;
        }
        let Some((&first, rest)) = of_plan.split_first() else { return true };
        let candidates = if any_order { sources.len() } else { 1 };
        for candidate in 0..candidates {
            let before = (self.pairs.clone(), self.taken.clone());
            let mut others = sources.to_vec();
            let source = others.remove(candidate);
            if self.pair(first, source) && self.all(rest, &others, any_order) {
                return true;
            }
            (self.pairs, self.taken) = before;
        }
        false
    }
}
