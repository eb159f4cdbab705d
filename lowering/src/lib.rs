//! Lowering: an op or a network of the catalog as something that libtorch runs.
//!
//! This is the one place that knows how a primitive is computed. Weights are random and scaled so
//! that values neither explode nor vanish; activations work in place where nothing else reads their
//! input, as deployed networks do; a value is freed after its last use, as eager execution does.

mod primitive;
#[cfg(test)]
mod tests;

use anyhow::{Context, Result};
use ops_catalog::{Merge, NetworkPlan, OpPlan, Source, TensorShape, Value};
use tch::{Kind, Tensor};

use primitive::{Kernel, channel_dim};

/// The primitives that this agent can run, by the names that definitions use. A coordinator gives it
/// no op that has another one.
pub const PRIMITIVES: [&str; 25] = [
    "conv2d",
    "linear",
    "batch_norm",
    "layer_norm",
    "layer_scale",
    "relu",
    "relu6",
    "hardswish",
    "silu",
    "gelu",
    "sigmoid",
    "max_pool",
    "avg_pool",
    "global_avg_pool",
    "self_attention",
    "squeeze_excite",
    "add",
    "mul",
    "concat",
    "split",
    "shuffle",
    "upsample",
    "identity",
    "to_tokens",
    "class_token",
];

/// Where tensors live and how they are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// The device.
    pub device: tch::Device,
    /// Element type.
    pub kind: Kind,
    /// Whether maps, and the weights of convolutions, are stored position by position.
    pub channels_last: bool,
}

impl Placement {
    /// A tensor of standard normal values.
    fn normal(&self, dims: &[i64]) -> Result<Tensor, tch::TchError> {
        self.place(&Tensor::f_randn(dims, (Kind::Float, tch::Device::Cpu))?)
    }

    /// A copy of `values` as this placement wants it.
    fn place(&self, values: &Tensor) -> Result<Tensor, tch::TchError> {
        let placed = values.f_to_kind(self.kind)?.f_to_device(self.device)?;
        if !(self.channels_last && placed.dim() == 4) {
            return Ok(placed);
        }
        // tch has no memory formats: a contiguous copy in the order n, h, w, c, seen as n, c, h, w, has
        // the strides by which libtorch knows this one.
        placed.f_permute([0, 2, 3, 1])?.f_contiguous()?.f_permute([0, 3, 1, 2])
    }
}

/// Where the graph executor finds a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Input,
    Temporary(usize),
}

/// A step with its wires resolved to slots.
#[derive(Debug)]
struct Wired<T> {
    run: T,
    inputs: Vec<Slot>,
    /// First of its output slots.
    output: usize,
    /// Slots that nothing reads after this step.
    freed: Vec<usize>,
}

/// A value that a step reads.
enum Argument<'a> {
    Shared(&'a Tensor),
    /// Nothing reads it after this step, so the step may overwrite it.
    Owned(Tensor),
}

impl Argument<'_> {
    fn tensor(&self) -> &Tensor {
        match self {
            Argument::Shared(tensor) => tensor,
            Argument::Owned(tensor) => tensor,
        }
    }
}

/// Fills in which slots each step is the last to read. The result is read after the last step. A
/// slot that is read twice by one step is left alone: it can be handed over only once.
fn mark_last_uses<T>(steps: &mut [Wired<T>], result: Slot) {
    let mut seen: Vec<usize> = match result {
        Slot::Temporary(slot) => vec![slot],
        Slot::Input => vec![],
    };
    for step in steps.iter_mut().rev() {
        for input in &step.inputs {
            if let Slot::Temporary(slot) = *input
                && !seen.contains(&slot)
            {
                seen.push(slot);
                if step.inputs.iter().filter(|&other| other == input).count() == 1 {
                    step.freed.push(slot);
                }
            }
        }
    }
}

/// Runs wired steps over an input.
fn execute<T>(
    steps: &[Wired<T>],
    slots: usize,
    result: Slot,
    input: &Tensor,
    run: impl Fn(&T, Vec<Argument>) -> Result<Vec<Tensor>, tch::TchError>,
) -> Result<Tensor, tch::TchError> {
    let mut values: Vec<Option<Tensor>> = Vec::new();
    values.resize_with(slots, || None);
    for step in steps {
        // Values that die here are handed over; the others are lent. Taking comes first, so that
        // lending can borrow the rest.
        let mut owned: Vec<Option<Tensor>> = step
            .inputs
            .iter()
            .map(|slot| match *slot {
                Slot::Temporary(slot) if step.freed.contains(&slot) => values[slot].take(),
                _ => None,
            })
            .collect();
        let arguments = step
            .inputs
            .iter()
            .zip(&mut owned)
            .map(|(slot, owned)| match (owned.take(), *slot) {
                (Some(tensor), _) => Argument::Owned(tensor),
                (None, Slot::Input) => Argument::Shared(input),
                (None, Slot::Temporary(slot)) => Argument::Shared(
                    values[slot].as_ref().expect("a step reads what an earlier step wrote"),
                ),
            })
            .collect();
        let outputs = run(&step.run, arguments)?;
        for (offset, output) in outputs.into_iter().enumerate() {
            values[step.output + offset] = Some(output);
        }
    }
    Ok(match result {
        Slot::Input => input.shallow_clone(),
        Slot::Temporary(slot) => values[slot].take().expect("the result was written"),
    })
}

/// An op at a shape, with weights.
#[derive(Debug)]
pub struct LoweredOp {
    steps: Vec<Wired<Kernel>>,
    slots: usize,
    result: Slot,
    input: TensorShape,
    placement: Placement,
}

impl LoweredOp {
    /// Makes weights for a plan.
    ///
    /// # Errors
    /// When libtorch cannot allocate them.
    pub fn new(plan: &OpPlan, placement: Placement) -> Result<LoweredOp> {
        let mut steps = Vec::with_capacity(plan.steps.len());
        let mut first_slots = Vec::with_capacity(plan.steps.len());
        let mut slots = 0;
        for step in &plan.steps {
            let slot = |source: &Source| match *source {
                Source::Input => Slot::Input,
                Source::Node { index, port } => Slot::Temporary(first_slots[index] + port),
            };
            let inputs: Vec<Slot> = step.inputs.iter().map(slot).collect();
            let shape = match step.inputs[0] {
                Source::Input => plan.input,
                Source::Node { index, port } => plan.steps[index].outputs[port],
            };
            let kernel = Kernel::new(&step.primitive, shape, placement)
                .with_context(|| format!("preparing {}", step.primitive.name()))?;
            first_slots.push(slots);
            steps.push(Wired { run: kernel, inputs, output: slots, freed: vec![] });
            slots += step.outputs.len();
        }
        let result = match plan.result {
            Source::Input => Slot::Input,
            Source::Node { index, port } => Slot::Temporary(first_slots[index] + port),
        };
        mark_last_uses(&mut steps, result);
        // Working in place on a view would overwrite what it is a view of.
        let views: Vec<usize> = (0..steps.len())
            .filter(|&index| steps[index].run.gives_view())
            .flat_map(|index| {
                let first = steps[index].output;
                first..first + plan.steps[index].outputs.len()
            })
            .collect();
        for step in &mut steps {
            step.freed.retain(|slot| !views.contains(slot));
        }
        Ok(LoweredOp { steps, slots, result, input: plan.input, placement })
    }

    /// A normally distributed input.
    ///
    /// # Errors
    /// When libtorch cannot allocate it.
    pub fn random_input(&self) -> Result<Tensor> {
        Ok(self.placement.normal(&self.input.dims())?)
    }

    /// Runs it once.
    ///
    /// # Errors
    /// What libtorch reports.
    pub fn forward(&self, input: &Tensor) -> Result<Tensor, tch::TchError> {
        execute(&self.steps, self.slots, self.result, input, Kernel::run)
    }
}

/// One step of a lowered network.
#[derive(Debug)]
enum NetworkStep {
    Op(LoweredOp),
    Add,
    Concat,
}

/// A whole network, with weights.
#[derive(Debug)]
pub struct LoweredNetwork {
    steps: Vec<Wired<NetworkStep>>,
    result: Slot,
    input: TensorShape,
    placement: Placement,
}

impl LoweredNetwork {
    /// Makes weights for a network.
    ///
    /// # Errors
    /// When libtorch cannot allocate them.
    pub fn new(plan: &NetworkPlan, placement: Placement) -> Result<LoweredNetwork> {
        let slot = |value: Value| match value {
            Value::Input => Slot::Input,
            Value::Of(step) => Slot::Temporary(step),
        };
        let mut steps = Vec::with_capacity(plan.steps.len());
        for (index, step) in plan.steps.iter().enumerate() {
            let run = match step.merge {
                Some(Merge::Add) => NetworkStep::Add,
                Some(Merge::Concat) => NetworkStep::Concat,
                None => NetworkStep::Op(
                    LoweredOp::new(&step.plan, placement)
                        .with_context(|| format!("preparing {}", step.key))?,
                ),
            };
            let inputs = step.inputs.iter().copied().map(slot).collect();
            steps.push(Wired { run, inputs, output: index, freed: vec![] });
        }
        let result = Slot::Temporary(plan.steps.len() - 1);
        mark_last_uses(&mut steps, result);
        let ops_catalog::Input { n, c, h, w } = plan.input;
        Ok(LoweredNetwork { steps, result, input: TensorShape::Map { n, c, h, w }, placement })
    }

    /// A normally distributed input.
    ///
    /// # Errors
    /// When libtorch cannot allocate it.
    pub fn random_input(&self) -> Result<Tensor> {
        Ok(self.placement.normal(&self.input.dims())?)
    }

    /// Runs it once.
    ///
    /// # Errors
    /// What libtorch reports.
    pub fn forward(&self, input: &Tensor) -> Result<Tensor, tch::TchError> {
        execute(&self.steps, self.steps.len(), self.result, input, |step, arguments| {
            let output = match step {
                NetworkStep::Op(op) => op.forward(arguments[0].tensor()),
                NetworkStep::Add => arguments[0].tensor().f_add(arguments[1].tensor()),
                NetworkStep::Concat => {
                    let tensors: Vec<&Tensor> = arguments.iter().map(Argument::tensor).collect();
                    Tensor::f_cat(&tensors, channel_dim(tensors[0]))
                }
            };
            output.map(|tensor| vec![tensor])
        })
    }
}
