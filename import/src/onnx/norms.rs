//! Norms, softmax and reductions of ONNX.

use super::call::Call;
use crate::build::dimensions::{axis, small};
use crate::error::{Step, malformed, unsupported};
use crate::graph::{Operation, Reduction, ValueId};

/// The default of `epsilon`.
const EPSILON: f64 = 1e-5;

impl Call<'_, '_> {
    fn epsilon(&self) -> Step<f64> {
        self.float("epsilon", EPSILON)
    }

    /// The inputs from the second on, which have to be constants.
    fn parameters(&self) -> Step<Vec<ValueId>> {
        let parameters: Vec<ValueId> = self.inputs[1..].iter().flatten().copied().collect();
        if parameters.iter().any(|&id| !self.builder.is_constant(id)) {
            return unsupported("its parameters are computed from the model's input");
        }
        Ok(parameters)
    }

    fn with_parameters(&mut self, operation: Operation) -> Step<ValueId> {
        let x = self.need(0)?;
        let inputs = [vec![x], self.parameters()?].concat();
        self.builder.apply(operation, &inputs)
    }

    pub(super) fn batch_norm(&mut self) -> Step<ValueId> {
        if self.int("training_mode", 0)? != 0 {
            return self.builder.training();
        }
        if self.all()?.len() != 5 {
            return malformed("it should have a scale, a shift, a mean and a variance");
        }
        self.with_parameters(Operation::BatchNorm { epsilon: self.epsilon()? })
    }

    pub(super) fn layer_norm(&mut self) -> Step<ValueId> {
        let rank = self.builder.rank(self.need(0)?);
        let dimensions = rank - axis(self.int("axis", -1)?, rank)?;
        self.with_parameters(Operation::LayerNorm { dimensions, epsilon: self.epsilon()? })
    }

    pub(super) fn rms_norm(&mut self) -> Step<ValueId> {
        let rank = self.builder.rank(self.need(0)?);
        if axis(self.int("axis", -1)?, rank)? + 1 != rank {
            return unsupported("a norm over more than the last dimension");
        }
        self.need(1)?;
        self.with_parameters(Operation::RmsNorm { epsilon: self.epsilon()? })
    }

    pub(super) fn group_norm(&mut self) -> Step<ValueId> {
        let x = self.need(0)?;
        let groups = small(self.int("num_groups", 1)?)?;
        let channels = self.builder.dims(x).get(1).copied().unwrap_or(0);
        let mut inputs = vec![x];
        for parameter in self.parameters()? {
            // Before opset 21, there was one number for each group.
            let per_group = self.opset < 21 && self.builder.dims(parameter) == [u64::from(groups)];
            let whole = per_group && groups > 0 && channels % u64::from(groups) == 0;
            inputs.push(match whole {
                true => {
                    let size = channels / u64::from(groups);
                    let column = self.builder.reshape(parameter, &[groups.into(), 1])?;
                    let spread = self.builder.expand(column, &[groups.into(), size])?;
                    self.builder.reshape(spread, &[channels])?
                }
                false => parameter,
            });
        }
        self.builder.apply(Operation::GroupNorm { groups, epsilon: self.epsilon()? }, &inputs)
    }

    pub(super) fn instance_norm(&mut self) -> Step<ValueId> {
        let x = self.need(0)?;
        let channels = self.builder.dims(x).get(1).copied().unwrap_or(0);
        let groups = small(i64::try_from(channels).unwrap_or(i64::MAX))?;
        self.with_parameters(Operation::GroupNorm { groups, epsilon: self.epsilon()? })
    }

    pub(super) fn softmax(&mut self) -> Step<ValueId> {
        let x = self.need(0)?;
        let dims = self.builder.dims(x);
        let default = if self.opset < 13 { 1 } else { -1 };
        let axis = axis(self.int("axis", default)?, dims.len())?;
        // Before opset 13, it was one softmax over all dimensions from the axis on.
        if self.opset < 13 && dims[axis + 1..].iter().any(|&size| size != 1) {
            return unsupported("a softmax over several dimensions: export with opset 13 or newer");
        }
        self.builder.apply(Operation::Softmax { axis }, &[x])
    }

    pub(super) fn reduce_norm(&mut self) -> Step<ValueId> {
        let (x, axes) = (self.need(0)?, self.list("axes", 1)?.unwrap_or_default());
        if axes.is_empty() && self.int("noop_with_empty_axes", 0)? != 0 {
            return unsupported("a norm of single numbers");
        }
        let keep = self.int("keepdims", 1)? != 0;
        self.builder.norm(x, &axes, keep)
    }

    pub(super) fn reduce(&mut self, reduction: Reduction) -> Step<ValueId> {
        let x = self.need(0)?;
        let axes = self.list("axes", 1)?.unwrap_or_default();
        if axes.is_empty() && self.int("noop_with_empty_axes", 0)? != 0 {
            return Ok(x);
        }
        let keep = self.int("keepdims", 1)? != 0;
        self.builder.reduce(reduction, x, &axes, keep)
    }
}
