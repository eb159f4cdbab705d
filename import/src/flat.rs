//! A model as one graph of the catalog's primitives.

use std::fmt;
use std::sync::Arc;

use ops_catalog::{Invalid, Primitive, TensorShape};

use crate::formula::Formula;

/// Where a primitive's input comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Source {
    /// The model's input.
    Input,
    /// The output of a step.
    Step(usize),
}

/// What a step computes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Apply {
    /// A primitive of the catalog.
    Primitive(Primitive<u32>),
    /// Attention inside the windows of a map, without its projections. The catalog has it only with them, so a later
    /// stage joins them, or says that it can't.
    Windows(Windows),
    /// Nothing any more: its only reader computes it too.
    Absorbed,
    /// A value that another problem keeps from being known. There is no network then.
    Assumed,
}

/// The windows of an attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Windows {
    pub(crate) heads: u32,
    pub(crate) window: u32,
    pub(crate) shift: u32,
    pub(crate) grid: bool,
    pub(crate) position_bias: bool,
    pub(crate) cosine: bool,
}

/// One step of a [`Flat`] graph.
#[derive(Debug, Clone)]
pub(crate) struct FlatStep {
    pub(crate) apply: Apply,
    pub(crate) inputs: Vec<Source>,
    pub(crate) output: TensorShape,
    /// Its weights by the name that the lowering asks for, and where the model has them.
    pub(crate) weights: Vec<(String, Given)>,
    /// Its place in the model, for messages.
    pub(crate) place: String,
    /// The model's operator, for messages.
    pub(crate) operator: String,
}

/// A model as primitives, in an order in which they can run.
#[derive(Debug, Clone)]
pub(crate) struct Flat {
    pub(crate) input: TensorShape,
    pub(crate) steps: Vec<FlatStep>,
    pub(crate) output: Source,
}

/// How a weight of the network follows from the weights that are stored with the model.
#[derive(Debug, Clone, PartialEq)]
pub enum Given {
    /// A stored tensor.
    Stored(String),
    /// Another one with these dimensions.
    Reshaped(Box<Given>, Vec<u64>),
    /// A matrix with its dimensions exchanged.
    Transposed(Box<Given>),
    /// The elements of another one along a dimension, in another order: element `i` is the one at `order[i]`.
    Ordered {
        /// The other one.
        given: Box<Given>,
        /// The dimension.
        axis: usize,
        /// Where each element is in the other one.
        order: Arc<[usize]>,
    },
    /// The same number everywhere.
    Constant(f64, Vec<u64>),
    /// The weight of a convolution into which a batch norm was folded: times `scale / sqrt(variance + epsilon)`, a
    /// factor for each output channel.
    FoldedWeight {
        /// The convolution's own weight.
        weight: Box<Given>,
        /// The batch norm.
        norm: Box<Norm>,
    },
    /// The bias of such a convolution: `shift + (bias - mean) * scale / sqrt(variance + epsilon)`.
    FoldedBias {
        /// The convolution's own bias, if it has one.
        bias: Option<Box<Given>>,
        /// The batch norm.
        norm: Box<Norm>,
    },
    /// What the model computes from stored tensors alone.
    Computed(Arc<Formula>),
    /// The biases of relative positions `[(2 * side - 1)^2, heads]` in windows of a side, from those of all pairs of
    /// places, `[1, heads, side^2, side^2]`.
    ByOffset(Box<Given>, u64),
    /// The model computes it, and the file does not say from what.
    Unknown,
}

impl Given {
    /// Whether the file says from what all of it is computed.
    pub fn is_known(&self) -> bool {
        let norm = |norm: &Norm| {
            [&norm.scale, &norm.shift, &norm.mean, &norm.variance]
                .iter()
                .all(|given| given.is_known())
        };
        match self {
            Given::Stored(_) | Given::Constant(..) | Given::Computed(_) => true,
            Given::Reshaped(given, _)
            | Given::Transposed(given)
            | Given::Ordered { given, .. }
            | Given::ByOffset(given, _) => given.is_known(),
            Given::FoldedWeight { weight, norm: own } => weight.is_known() && norm(own),
            Given::FoldedBias { bias, norm: own } => {
                bias.as_ref().is_none_or(|bias| bias.is_known()) && norm(own)
            }
            Given::Unknown => false,
        }
    }
}

/// The weights of a batch norm.
#[derive(Debug, Clone, PartialEq)]
pub struct Norm {
    /// Scale of each channel.
    pub scale: Given,
    /// Shift of each channel.
    pub shift: Given,
    /// Running mean.
    pub mean: Given,
    /// Running variance.
    pub variance: Given,
    /// Added to the variance.
    pub epsilon: f64,
}

/// A part of a model that can't be expressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The node.
    pub node: String,
    /// Its operator.
    pub operator: String,
    /// Why, and what to do if something can be done.
    pub why: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.node, self.operator, self.why)
    }
}

impl Flat {
    pub(crate) fn shape(&self, source: Source) -> TensorShape {
        match source {
            Source::Input => self.input,
            Source::Step(index) => self.steps[index].output,
        }
    }

    /// Adds a primitive, with its shape inferred.
    pub(crate) fn push(
        &mut self,
        mut primitive: Primitive<u32>,
        inputs: Vec<Source>,
        weights: Vec<(String, Given)>,
        (place, operator): (&str, &str),
    ) -> Result<Source, Invalid> {
        let shapes: Vec<TensorShape> = inputs.iter().map(|&input| self.shape(input)).collect();
        let (outputs, _) = primitive.infer(&shapes)?;
        self.steps.push(FlatStep {
            apply: Apply::Primitive(primitive),
            inputs,
            output: outputs[0],
            weights,
            place: place.to_owned(),
            operator: operator.to_owned(),
        });
        Ok(Source::Step(self.steps.len() - 1))
    }

    /// Adds a value of which only the shape is known, so that what reads it can be examined.
    pub(crate) fn assume(&mut self, output: TensorShape) -> Source {
        self.steps.push(FlatStep {
            apply: Apply::Assumed,
            inputs: vec![],
            output,
            weights: vec![],
            place: String::new(),
            operator: String::new(),
        });
        Source::Step(self.steps.len() - 1)
    }

    /// How often each step is read; the output counts as a reader.
    pub(crate) fn readers(&self) -> Vec<usize> {
        let mut readers = vec![0; self.steps.len()];
        let read = self
            .steps
            .iter()
            .filter(|step| step.apply != Apply::Absorbed)
            .flat_map(|step| step.inputs.iter())
            .chain([&self.output]);
        for source in read {
            if let Source::Step(index) = *source {
                readers[index] += 1;
            }
        }
        readers
    }

    /// Without the steps that do not lead to the output.
    pub(crate) fn pruned(self) -> Flat {
        let mut used = vec![false; self.steps.len()];
        if let Source::Step(index) = self.output {
            used[index] = true;
        }
        for (index, step) in self.steps.iter().enumerate().rev() {
            if used[index] {
                for input in &step.inputs {
                    if let Source::Step(input) = *input {
                        used[input] = true;
                    }
                }
            }
        }
        let mut places = vec![0; self.steps.len()];
        let mut kept = 0;
        for (index, used) in used.iter().enumerate() {
            places[index] = kept;
            kept += usize::from(*used);
        }
        let moved = |source: Source| match source {
            Source::Input => Source::Input,
            Source::Step(index) => Source::Step(places[index]),
        };
        let output = moved(self.output);
        let steps = self
            .steps
            .into_iter()
            .zip(used)
            .filter(|(_, used)| *used)
            .map(|(mut step, _)| {
                step.inputs.iter_mut().for_each(|input| *input = moved(*input));
                step
            })
            .collect();
        Flat { input: self.input, steps, output }
    }
}
