//! Norms, softmax and reductions of `aten`.

use super::call::Call;
use crate::build::dimensions::{axis, small};
use crate::error::{Step, malformed, unsupported};
use crate::graph::{Kind, Operation, Reduction, ValueId};

impl Call<'_, '_> {
    /// A parameter of a norm: the one of the model, or ones or zeros in its place.
    fn parameter(&mut self, name: &str, dims: &[u64], default: f64) -> Step<ValueId> {
        if let Some(id) = self.tensor(name)? {
            return match self.builder.is_constant(id) {
                true => Ok(id),
                false => unsupported("its parameters are computed from the model's input"),
            };
        }
        let scalar = self.builder.scalar(default, Kind::Float)?;
        self.builder.expand(scalar, dims)
    }

    /// Values, scale and shift. Scale and shift are left out if the model has neither.
    fn affine(&mut self, dims: &[u64]) -> Step<Vec<ValueId>> {
        let mut inputs = vec![self.first()?];
        if self.has("weight") || self.has("bias") {
            inputs.push(self.parameter("weight", dims, 1.0)?);
        }
        if self.has("bias") {
            inputs.push(self.parameter("bias", dims, 0.0)?);
        }
        Ok(inputs)
    }

    fn channels(&self) -> Step<u64> {
        let dims = self.builder.dims(self.first()?);
        match dims.get(1) {
            Some(&channels) => Ok(channels),
            None => malformed(format!("{dims:?} has no channels")),
        }
    }

    pub(super) fn norm(&mut self, name: &str) -> Step<ValueId> {
        match name {
            "layer_norm" | "native_layer_norm" => {
                let dims = self.normalized()?;
                let inputs = self.affine(&dims)?;
                let (dimensions, epsilon) = (dims.len(), self.float("eps", 1e-5)?);
                self.builder.apply(Operation::LayerNorm { dimensions, epsilon }, &inputs)
            }
            "rms_norm" => {
                let dims = self.normalized()?;
                if dims.len() != 1 {
                    return unsupported("a norm over more than the last dimension");
                }
                let inputs = [self.first()?, self.parameter("weight", &dims, 1.0)?];
                // The default is the distance of 1 to the next number in single precision.
                let epsilon = self.float("eps", f64::from(f32::EPSILON))?;
                self.builder.apply(Operation::RmsNorm { epsilon }, &inputs)
            }
            "group_norm" => self.groups("num_groups"),
            "native_group_norm" => self.groups("group"),
            "instance_norm" if self.bool("use_input_stats", true)? => {
                let channels = self.channels()?;
                self.grouped(small(i64::try_from(channels).unwrap_or(i64::MAX))?)
            }
            // A standardized weight.
            _ if self.builder.is_constant(self.first()?) => {
                unsupported("a batch norm of a constant")
            }
            _ if self.bool("training", false)? => self.builder.training(),
            _ => self.batch_norm(),
        }
    }

    fn normalized(&self) -> Step<Vec<u64>> {
        let list = self.ints("normalized_shape")?;
        Ok(list.iter().map(|&n| u64::try_from(n).unwrap_or(0)).collect())
    }

    fn groups(&mut self, name: &str) -> Step<ValueId> {
        let groups = small(self.int(name, 1)?)?;
        self.grouped(groups)
    }

    fn grouped(&mut self, groups: u32) -> Step<ValueId> {
        let channels = self.channels()?;
        let inputs = self.affine(&[channels])?;
        let epsilon = self.float("eps", 1e-5)?;
        self.builder.apply(Operation::GroupNorm { groups, epsilon }, &inputs)
    }

    fn batch_norm(&mut self) -> Step<ValueId> {
        let dims = [self.channels()?];
        if !self.has("running_mean") || !self.has("running_var") {
            return unsupported("a batch norm without running statistics");
        }
        let inputs = [
            self.first()?,
            self.parameter("weight", &dims, 1.0)?,
            self.parameter("bias", &dims, 0.0)?,
            self.parameter("running_mean", &dims, 0.0)?,
            self.parameter("running_var", &dims, 1.0)?,
        ];
        let epsilon = self.float("eps", 1e-5)?;
        self.builder.apply(Operation::BatchNorm { epsilon }, &inputs)
    }

    /// The batch norms of core ATen. One over a single image without running statistics is how an instance norm is
    /// decomposed.
    pub(super) fn legit_norm(&mut self, name: &str, overload: &str) -> Step<ValueId> {
        if name == "_native_batch_norm_legit_no_training" {
            return self.batch_norm();
        }
        let single = self.builder.dims(self.first()?).first() == Some(&1);
        if overload == "no_stats" && single {
            let channels = self.channels()?;
            return self.grouped(small(i64::try_from(channels).unwrap_or(i64::MAX))?);
        }
        match self.bool("training", true)? {
            true => self.builder.training(),
            false => self.batch_norm(),
        }
    }

    pub(super) fn softmax(&mut self) -> Step<ValueId> {
        let x = self.first()?;
        let axis = axis(self.int("dim", -1)?, self.builder.rank(x))?;
        self.builder.apply(Operation::Softmax { axis }, &[x])
    }

    pub(super) fn vector_norm(&mut self) -> Step<ValueId> {
        let (x, dims) = (self.first()?, self.ints("dim")?);
        let order = if self.has("p") { "p" } else { "ord" };
        if self.float(order, 2.0)? != 2.0 {
            return unsupported("a norm of another order than 2");
        }
        let keep = self.bool("keepdim", false)?;
        self.builder.norm(x, &dims, keep)
    }

    pub(super) fn reduce(&mut self, reduction: Reduction) -> Step<ValueId> {
        let (x, dims) = (self.first()?, self.ints("dim")?);
        let keep = self.bool("keepdim", false)?;
        self.builder.reduce(reduction, x, &dims, keep)
    }
}
