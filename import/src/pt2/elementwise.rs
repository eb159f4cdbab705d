//! Activations and arithmetic of `aten`.

use super::call::Call;
use crate::error::{Step, malformed, unsupported};
use crate::fold::OnConstants;
use crate::graph::{Binary, Function, Kind, Operation, ValueId};

impl Call<'_, '_> {
    pub(super) fn elementwise(&mut self, name: &str, overload: &str) -> Step<ValueId> {
        let function = match name {
            "relu" => Function::Relu,
            "relu6" => Function::Clip { min: 0.0, max: 6.0 },
            "hardswish" => Function::Hardswish,
            "hardsigmoid" => Function::Hardsigmoid,
            "silu" => Function::Silu,
            "sigmoid" => Function::Sigmoid,
            "tanh" => Function::Tanh,
            "mish" => Function::Mish,
            "exp" => Function::Exp,
            "erf" | "special_erf" => Function::Erf,
            "sqrt" => Function::Sqrt,
            "rsqrt" => Function::Rsqrt,
            "reciprocal" => Function::Reciprocal,
            "neg" => Function::Negate,
            "abs" => Function::Abs,
            "sin" => Function::Sin,
            "cos" => Function::Cos,
            "hardtanh" | "clamp" | "clip" | "clamp_min" | "clamp_max" => self.limits(name)?,
            "gelu" | "elu" | "celu" | "leaky_relu" | "softplus" => self.activation(name)?,
            _ => return self.arithmetic(name, overload),
        };
        self.apply(function)
    }

    fn limits(&self, name: &str) -> Step<Function> {
        let (lower, upper) =
            if name == "hardtanh" { ("min_val", "max_val") } else { ("min", "max") };
        let open = if name == "hardtanh" { 1.0 } else { f64::INFINITY };
        let (min, max) = (self.float(lower, -open)?, self.float(upper, open)?);
        Ok(match max.is_infinite() && min == 0.0 {
            true => Function::Relu,
            false => Function::Clip { min, max },
        })
    }

    fn activation(&self, name: &str) -> Step<Function> {
        Ok(match name {
            "gelu" => match self.text("approximate", "none")? {
                "none" => Function::Gelu,
                "tanh" => Function::GeluTanh,
                other => {
                    return malformed(format!("`approximate` is `{}`", crate::error::shown(other)));
                }
            },
            "leaky_relu" => Function::LeakyRelu { slope: self.float("negative_slope", 0.01)? },
            "softplus" if self.float("beta", 1.0)? == 1.0 => Function::Softplus,
            "elu" if self.float("scale", 1.0)? == 1.0 && self.float("input_scale", 1.0)? == 1.0 => {
                Function::Elu { alpha: self.float("alpha", 1.0)? }
            }
            // Only with this alpha it is the same function.
            "celu" if self.float("alpha", 1.0)? == 1.0 => Function::Elu { alpha: 1.0 },
            _ => return unsupported("its parameters are others than the defaults"),
        })
    }

    fn arithmetic(&mut self, name: &str, overload: &str) -> Step<ValueId> {
        match name {
            "add" | "sub" | "rsub" => self.sum(name),
            "mul" => self.pair(Binary::Mul),
            "addcmul" => {
                let product = self.builder.binary(
                    Binary::Mul,
                    self.need("tensor1")?,
                    self.need("tensor2")?,
                )?;
                let factor = self.float("value", 1.0)?;
                let (x, product) = (self.first()?, self.scaled(product, factor)?);
                self.builder.binary(Binary::Add, x, product)
            }
            "div" | "true_divide" => self.division(),
            "maximum" | "max" => self.pair(Binary::Max),
            "minimum" | "min" if overload != "dim" => self.pair(Binary::Min),
            "pow" => {
                let (left, right) = (self.operand("self")?, self.operand("exponent")?);
                self.builder.binary(Binary::Pow, left, right)
            }
            "square" => {
                let x = self.first()?;
                self.builder.binary(Binary::Mul, x, x)
            }
            "prelu" | "_prelu_kernel" => self.prelu(),
            "dropout"
            | "native_dropout"
            | "feature_dropout"
            | "alpha_dropout"
            | "feature_alpha_dropout" => self.dropout(),
            _ => self.moves(name),
        }
    }

    fn pair(&mut self, function: Binary) -> Step<ValueId> {
        let (left, right) = (self.operand("self")?, self.operand("other")?);
        self.builder.binary(function, left, right)
    }

    /// `self + alpha * other`, and its relatives.
    fn sum(&mut self, name: &str) -> Step<ValueId> {
        let (left, right) = (self.operand("self")?, self.operand("other")?);
        let alpha = self.float("alpha", 1.0)?;
        let (function, left, right) = match name {
            "add" => (Binary::Add, left, self.scaled(right, alpha)?),
            "sub" => (Binary::Sub, left, self.scaled(right, alpha)?),
            _ => (Binary::Sub, right, self.scaled(left, alpha)?),
        };
        self.builder.binary(function, left, right)
    }

    fn division(&mut self) -> Step<ValueId> {
        let (mut left, right) = (self.operand("self")?, self.operand("other")?);
        match self.text("rounding_mode", "")? {
            "" => {}
            "floor" => return self.builder.on_constants(&OnConstants::FloorDiv, &[left, right]),
            _ => return unsupported("a division that rounds"),
        }
        // Of whole numbers it is a fraction, too.
        let float = |id: ValueId| self.builder.value(id).kind == Kind::Float;
        if !float(left) && !float(right) {
            left = self.builder.on_constants(&OnConstants::Cast(Kind::Float), &[left])?;
        }
        self.builder.binary(Binary::Div, left, right)
    }

    fn prelu(&mut self) -> Step<ValueId> {
        let (x, slope) = (self.first()?, self.need("weight")?);
        let count = crate::shapes::count(self.builder.dims(slope)).unwrap_or(0);
        let slope = self.builder.reshape(slope, &[count])?;
        self.builder.apply(Operation::Prelu, &[x, slope])
    }

    fn dropout(&mut self) -> Step<ValueId> {
        if self.bool("train", false)? && self.float("p", 0.5)? > 0.0 {
            return self.builder.training();
        }
        self.first()
    }
}
