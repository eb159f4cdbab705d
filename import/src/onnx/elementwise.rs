//! Activations and casts of ONNX.

use super::call::Call;
use super::tensors;
use crate::error::{Step, malformed, unsupported};
use crate::fold::OnConstants;
use crate::graph::{Function, Kind, Operation, ValueId};

/// Whether an attribute, which is stored in single precision, has a value.
fn is(number: f64, wanted: f64) -> bool {
    (number - wanted).abs() < 1e-6
}

impl Call<'_, '_> {
    pub(super) fn activation(&mut self, operator: &str) -> Step<ValueId> {
        let x = self.need(0)?;
        let function = match operator {
            "LeakyRelu" => Function::LeakyRelu { slope: self.float("alpha", 0.01)? },
            "Elu" => Function::Elu { alpha: self.float("alpha", 1.0)? },
            "HardSigmoid" => {
                let (alpha, beta) = (self.float("alpha", 0.2)?, self.float("beta", 0.5)?);
                if !is(alpha, 1.0 / 6.0) || !is(beta, 0.5) {
                    return unsupported(format!(
                        "a hard sigmoid with alpha {alpha} and beta {beta}: 1/6 and 1/2, as in PyTorch, are read"
                    ));
                }
                Function::Hardsigmoid
            }
            "Swish" if is(self.float("alpha", 1.0)?, 1.0) => Function::Silu,
            "Swish" => return unsupported("a swish with another alpha than 1"),
            _ => match self.text("approximate", "none")? {
                "none" => Function::Gelu,
                "tanh" => Function::GeluTanh,
                other => {
                    return malformed(format!("`approximate` is `{}`", crate::error::shown(other)));
                }
            },
        };
        self.builder.function(function, x)
    }

    /// The slope as one number, or one for each channel.
    pub(super) fn prelu(&mut self) -> Step<ValueId> {
        let (x, slope) = (self.need(0)?, self.need(1)?);
        let rank = self.builder.rank(x);
        let dims = self.builder.dims(slope).to_vec();
        let channel_axis =
            rank.checked_sub(dims.len()).and_then(|missing| 1_usize.checked_sub(missing));
        let only_channels =
            dims.iter().enumerate().all(|(i, &size)| size == 1 || Some(i) == channel_axis);
        if !only_channels {
            return unsupported(format!("slopes of {dims:?}: one for each channel are read"));
        }
        let flat = self.builder.reshape(slope, &[dims.iter().product()])?;
        self.builder.apply(Operation::Prelu, &[x, flat])
    }

    pub(super) fn clip(&mut self) -> Step<ValueId> {
        let x = self.need(0)?;
        let mut limits = [f64::NEG_INFINITY, f64::INFINITY];
        for (i, limit) in limits.iter_mut().enumerate() {
            let Some(id) = self.input(i + 1) else { continue };
            let Some(number) = self.builder.number(id) else {
                return unsupported("its limits are computed, or not in the file");
            };
            *limit = number;
        }
        let [min, max] = limits;
        let function = match max.is_infinite() && min == 0.0 {
            true => Function::Relu,
            false => Function::Clip { min, max },
        };
        self.builder.function(function, x)
    }

    pub(super) fn dropout(&mut self) -> Step<ValueId> {
        let training = match self.input(2) {
            None => false,
            Some(id) => match self.builder.number(id) {
                Some(number) => number != 0.0,
                None => return unsupported("its mode depends on the model's input"),
            },
        };
        if training { self.builder.training() } else { self.need(0) }
    }

    pub(super) fn cast(&mut self, like: bool) -> Step<ValueId> {
        let x = self.need(0)?;
        let wanted = match like {
            true => Some(self.builder.value(self.need(1)?).kind),
            false => tensors::kind(self.int("to", 0)?),
        };
        let Some(wanted) = wanted else {
            return unsupported("a cast to an element type that is not read");
        };
        cast(self, x, wanted)
    }
}

/// Elements of another kind. Between types of one kind nothing changes.
fn cast(call: &mut Call<'_, '_>, x: ValueId, wanted: Kind) -> Step<ValueId> {
    match call.builder.value(x).kind {
        kind if kind == wanted => Ok(x),
        _ => call.builder.on_constants(&OnConstants::Cast(wanted), &[x]),
    }
}
