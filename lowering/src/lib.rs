//! Lowering: turns an op or a network of the catalog into something that libtorch can run.
//!
//! - **The computation**: [`LoweredOp`] and [`LoweredNetwork`].
//! - **The weights**: a [`Weights`], which is [`Random`], [`Stored`], [`Sliced`] or [`Variables`].
//! - **The form**: [`Form::Deployed`] as on a device, or [`Form::Training`] with batch norms.
//!
//! Without gradients, activations are computed in place if nothing else reads their input, as in deployed networks, and
//! a value is freed after its last use, as in eager execution. Once a weight or the input requires gradients, nothing
//! is overwritten.
//!
//! ```
//! use latlas_lowering::{Form, LoweredOp, Placement, Random, Stored, Variables};
//! use ops_catalog::{Catalog, Shape};
//! use tch::{Device, nn::VarStore};
//!
//! let shape = Shape { batch: 2, input_h: 8, input_w: 8, channels_in: 4, channels_out: 4, stride: 1 };
//! let plan = Catalog::builtin().op("MBConv3_3x3")?.at(&shape)?;
//! let store = VarStore::new(Device::Cpu);
//! let weights = Variables::new(&store, Random::seeded(17));
//! let trained = LoweredOp::new(&plan, Placement::default(), Form::Training, &weights)?;
//! let input = trained.random_input()?;
//! trained.forward_train(&input)?.mean(None).backward();
//!
//! let folded = Stored::from(&store).folded()?;
//! let deployed = LoweredOp::new(&plan, Placement::default(), Form::Deployed, &folded)?;
//! let difference = deployed.forward(&input)? - trained.forward(&input)?;
//! assert!(f64::try_from(difference.abs().max())? < 1e-4);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod graph;
mod primitive;
#[cfg(test)]
mod tests;
mod weights;

use ops_catalog::{Merge, NetworkPlan, OpPlan, Primitive, TensorShape, Value};
use tch::{Kind, TchError, Tensor};

use crate::graph::{Slot, Wired, execute, mark_last_uses};
use crate::primitive::{Kernel, Mode};
use crate::weights::Source;
pub use crate::weights::{
    Axis, Random, Sliced, Spec, Stored, Variables, Weight, WeightError, Weights,
};
pub use ops_catalog::Init;

/// Version of the libtorch that this was built with.
pub const LIBTORCH_VERSION: &str = env!("LATLAS_LIBTORCH_VERSION");

/// Version of the oneDNN in it; None if it has none.
pub const ONEDNN_VERSION: Option<&str> = option_env!("LATLAS_ONEDNN_VERSION");

/// The device, element type and memory layout of tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// The device.
    pub device: tch::Device,
    /// Element type.
    pub kind: Kind,
    /// Whether maps and the weights of convolutions are stored in channels-last order.
    pub channels_last: bool,
}

impl Default for Placement {
    /// Single precision on the CPU, in channels-first order.
    fn default() -> Placement {
        Placement { device: tch::Device::Cpu, kind: Kind::Float, channels_last: false }
    }
}

impl Placement {
    /// A tensor of standard normal values, or of numbers of `rows` rows.
    fn random(&self, dims: &[i64], rows: Option<u32>) -> Result<Tensor, TchError> {
        let options = (Kind::Float, tch::Device::Cpu);
        self.place(&match rows {
            Some(rows) => {
                Tensor::f_rand(dims, options)?.f_mul_scalar(f64::from(rows))?.f_floor()?
            }
            None => Tensor::f_randn(dims, options)?,
        })
    }

    /// `values` in this placement: the same tensor if nothing has to change.
    fn place(&self, values: &Tensor) -> Result<Tensor, TchError> {
        let placed = values.f_to_kind(self.kind)?.f_to_device(self.device)?;
        if !(self.channels_last && placed.dim() == 4) {
            return Ok(placed);
        }
        // tch has no memory formats: a contiguous copy in the order n, h, w, c, viewed as n, c, h, w, has the strides
        // of libtorch's channels-last format.
        placed.f_permute([0, 2, 3, 1])?.f_contiguous()?.f_permute([0, 3, 1, 2])
    }
}

/// The form of an op's convolutions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The form of definitions, and the form that devices run: batch norms are folded into biased convolutions.
    Deployed,
    /// The form with batch norms: each convolution with [`folded_norm`](ops_catalog::Step::folded_norm) has no bias,
    /// and is followed by a batch norm `norm`. [`Stored::folded`] converts back to the deployed form.
    Training,
}

/// An op at a shape, with weights.
#[derive(Debug)]
pub struct LoweredOp {
    steps: Vec<Wired<Kernel>>,
    slots: usize,
    result: Slot,
    input: TensorShape,
    placement: Placement,
    /// The rows of the table if the input holds numbers of rows.
    rows: Option<u32>,
    /// Whether no weight required gradients when the op was created. If so, values may be overwritten unless the input
    /// requires gradients.
    in_place: bool,
    weights: Vec<Weight>,
}

impl LoweredOp {
    /// Gets weights for a plan. Weights that need gradients must require them before this call.
    ///
    /// # Errors
    /// Names a weight that is missing, has a different shape, or cannot be allocated.
    pub fn new(
        plan: &OpPlan,
        placement: Placement,
        form: Form,
        weights: &dyn Weights,
    ) -> Result<LoweredOp, WeightError> {
        LoweredOp::from(plan, placement, form, Source::new(weights, placement))
    }

    fn from(
        plan: &OpPlan,
        placement: Placement,
        form: Form,
        mut weights: Source,
    ) -> Result<LoweredOp, WeightError> {
        let mut steps = Vec::with_capacity(plan.steps.len());
        let mut first_slots = Vec::with_capacity(plan.steps.len());
        let mut slots = 0;
        for step in &plan.steps {
            let inputs = step.inputs.iter().map(|&source| slot(source, &first_slots)).collect();
            let shape = |source: &ops_catalog::Source| match *source {
                ops_catalog::Source::Input => plan.input,
                ops_catalog::Source::Node { index, port } => plan.steps[index].outputs[port],
            };
            let shapes: Vec<TensorShape> = step.inputs.iter().map(shape).collect();
            let kernel =
                weights.within(&step.name, |weights| Kernel::new(step, &shapes, form, weights))?;
            first_slots.push(slots);
            steps.push(Wired { run: kernel, inputs, output: slots, freed: vec![] });
            slots += step.outputs.len();
        }
        let result = slot(plan.result, &first_slots);
        mark_last_uses(&mut steps, result);
        // Working in place on a view would overwrite the tensor behind it.
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
        let weights = weights.into_weights();
        let in_place =
            form == Form::Deployed && !weights.iter().any(|weight| weight.tensor.requires_grad());
        let rows = plan.steps.iter().find_map(|step| match step.primitive {
            Primitive::Embedding { rows, .. } if step.inputs == [ops_catalog::Source::Input] => {
                Some(rows)
            }
            _ => None,
        });
        let input = plan.input;
        Ok(LoweredOp { steps, slots, result, input, placement, rows, in_place, weights })
    }

    /// A normally distributed input; for an op that looks up rows of a table, numbers of rows.
    ///
    /// # Errors
    /// When libtorch cannot allocate it.
    pub fn random_input(&self) -> Result<Tensor, TchError> {
        self.placement.random(&self.input.dims(), self.rows)
    }

    /// Its weights, in the order of the steps.
    pub fn weights(&self) -> impl Iterator<Item = &Weight> {
        self.weights.iter()
    }

    /// Runs it once. Batch norms use their running statistics.
    ///
    /// # Errors
    /// What libtorch reports.
    pub fn forward(&self, input: &Tensor) -> Result<Tensor, TchError> {
        self.run(input, false)
    }

    /// Runs it once. Batch norms use the statistics of the batch, and update the running ones.
    ///
    /// # Errors
    /// What libtorch reports.
    pub fn forward_train(&self, input: &Tensor) -> Result<Tensor, TchError> {
        self.run(input, true)
    }

    fn run(&self, input: &Tensor, train: bool) -> Result<Tensor, TchError> {
        let mode = Mode { in_place: self.in_place && !input.requires_grad(), train };
        execute(&self.steps, self.slots, self.result, input, mode.in_place, |kernel, arguments| {
            kernel.run(arguments, mode)
        })
    }
}

/// The slot of a value of a plan, given the first slot of each step.
fn slot(source: ops_catalog::Source, first_slots: &[usize]) -> Slot {
    match source {
        ops_catalog::Source::Input => Slot::Input,
        ops_catalog::Source::Node { index, port } => Slot::Temporary(first_slots[index] + port),
    }
}

/// One step of a lowered network.
#[derive(Debug)]
enum NetworkStep {
    Op(LoweredOp),
    Add,
    Mul,
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
    /// Gets weights for a network. Weight names begin with the place of the layer: those of `layers[3]` with
    /// `layers.3`.
    ///
    /// # Errors
    /// Names a weight that is missing, has a different shape, or cannot be allocated.
    pub fn new(
        plan: &NetworkPlan,
        placement: Placement,
        form: Form,
        weights: &dyn Weights,
    ) -> Result<LoweredNetwork, WeightError> {
        let slot = |value: Value| match value {
            Value::Input => Slot::Input,
            Value::Of(step) => Slot::Temporary(step),
        };
        let mut steps = Vec::with_capacity(plan.steps.len());
        for (index, step) in plan.steps.iter().enumerate() {
            let run = match step.merge {
                Some(Merge::Add) => NetworkStep::Add,
                Some(Merge::Mul) => NetworkStep::Mul,
                Some(Merge::Concat) => NetworkStep::Concat,
                None => {
                    let place = step.place.replace('[', ".").replace(']', "");
                    let source = Source::new(weights, placement).below(&place);
                    NetworkStep::Op(LoweredOp::from(&step.plan, placement, form, source)?)
                }
            };
            let inputs = step.inputs.iter().copied().map(slot).collect();
            steps.push(Wired { run, inputs, output: index, freed: vec![] });
        }
        let result = Slot::Temporary(plan.steps.len() - 1);
        mark_last_uses(&mut steps, result);
        let ops_catalog::Input { n, c, h, w } = plan.input;
        Ok(LoweredNetwork { steps, result, input: TensorShape::Map { n, c, h, w }, placement })
    }

    /// A normally distributed input; for a network that begins with rows of a table, numbers of rows.
    ///
    /// # Errors
    /// When libtorch cannot allocate it.
    pub fn random_input(&self) -> Result<Tensor, TchError> {
        let rows = self.steps.iter().find_map(|step| match &step.run {
            NetworkStep::Op(op) if step.inputs == [Slot::Input] => op.rows,
            _ => None,
        });
        self.placement.random(&self.input.dims(), rows)
    }

    /// Its weights, in the order of the steps.
    pub fn weights(&self) -> impl Iterator<Item = &Weight> {
        self.steps.iter().flat_map(|step| match &step.run {
            NetworkStep::Op(op) => op.weights.as_slice(),
            NetworkStep::Add | NetworkStep::Mul | NetworkStep::Concat => &[],
        })
    }

    /// Runs it once. Batch norms use their running statistics.
    ///
    /// # Errors
    /// What libtorch reports.
    pub fn forward(&self, input: &Tensor) -> Result<Tensor, TchError> {
        self.run(input, false)
    }

    /// Runs it once. Batch norms use the statistics of the batch, and update the running ones.
    ///
    /// # Errors
    /// What libtorch reports.
    pub fn forward_train(&self, input: &Tensor) -> Result<Tensor, TchError> {
        self.run(input, true)
    }

    fn run(&self, input: &Tensor, train: bool) -> Result<Tensor, TchError> {
        // An op does not overwrite its input, so handing a value over only frees it.
        execute(&self.steps, self.steps.len(), self.result, input, true, |step, arguments| {
            let output = match step {
                NetworkStep::Op(op) => op.run(arguments[0].tensor(), train),
                NetworkStep::Add => arguments[0].tensor().f_add(arguments[1].tensor()),
                NetworkStep::Mul => arguments[0].tensor().f_mul(arguments[1].tensor()),
                NetworkStep::Concat => primitive::concat(&arguments),
            };
            output.map(|tensor| vec![tensor])
        })
    }
}
