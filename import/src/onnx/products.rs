//! Matrix products and attention of ONNX.

use super::call::Call;
use crate::error::{Step, malformed, unsupported};
use crate::graph::{Binary, Kind, ValueId};
use crate::products::{Attention, linear, matmul};

impl Call<'_, '_> {
    /// `alpha * a @ b + beta * c`.
    pub(super) fn gemm(&mut self) -> Step<ValueId> {
        let (mut a, mut weight) = (self.need(0)?, self.need(1)?);
        if self.builder.rank(a) != 2 || self.builder.rank(weight) != 2 {
            return malformed("its inputs should be matrices");
        }
        if self.int("transA", 0)? != 0 {
            a = self.builder.transpose(a, 0, 1)?;
        }
        let (alpha, beta) = (self.float("alpha", 1.0)?, self.float("beta", 1.0)?);
        let transposed = self.int("transB", 0)? != 0;
        weight = self.scaled(weight, alpha)?;
        let bias = match self.input(2) {
            Some(bias) => Some(self.scaled(bias, beta)?),
            None => None,
        };
        if self.builder.is_constant(weight) && !self.builder.is_constant(a) {
            let bias = match bias {
                Some(bias) => Some(self.vector(bias)?),
                None => None,
            };
            return linear(self.builder, a, weight, transposed, bias);
        }
        if transposed {
            weight = self.builder.transpose(weight, 0, 1)?;
        }
        let product = matmul(self.builder, a, weight)?;
        match bias {
            Some(bias) => self.builder.binary(Binary::Add, product, bias),
            None => Ok(product),
        }
    }

    fn scaled(&mut self, x: ValueId, factor: f64) -> Step<ValueId> {
        if (factor - 1.0).abs() < f64::EPSILON {
            return Ok(x);
        }
        let factor = self.builder.scalar(factor, Kind::Float)?;
        self.builder.binary(Binary::Mul, x, factor)
    }

    /// A bias of one row as a vector.
    fn vector(&mut self, bias: ValueId) -> Step<ValueId> {
        match *self.builder.dims(bias) {
            [1, width] => self.builder.reshape(bias, &[width]),
            _ => Ok(bias),
        }
    }

    pub(super) fn attention(&mut self) -> Step<ValueId> {
        for (name, why) in [("past_key", 4), ("past_value", 5), ("nonpad_kv_seqlen", 6)] {
            if self.input(why).is_some() {
                return unsupported(format!("attention with a cache (`{name}`)"));
            }
        }
        let windows = ["left_window_size", "right_window_size"];
        let windowed = windows.iter().map(|name| self.int(name, -1)).collect::<Step<Vec<_>>>()?;
        if self.float("softcap", 0.0)? != 0.0 || windowed.iter().any(|&size| size >= 0) {
            return unsupported("attention with a soft cap or a sliding window");
        }
        let scale = match self.any("scale") {
            Some(_) => Some(self.float("scale", 1.0)?),
            None => None,
        };
        let attention =
            Attention { mask: self.input(3), causal: self.int("is_causal", 0)? != 0, scale };
        let inputs = [self.need(0)?, self.need(1)?, self.need(2)?];
        if self.builder.rank(inputs[0]) != 3 {
            return attention.apply(self.builder, inputs);
        }
        // Heads side by side in the last dimension.
        let heads = [("q_num_heads", 0), ("kv_num_heads", 1), ("kv_num_heads", 2)];
        let mut apart = inputs;
        for (name, i) in heads {
            let heads = u64::try_from(self.int(name, 0)?).unwrap_or(0);
            let [n, length, width] = *self.builder.dims(inputs[i]) else {
                return malformed("its queries, keys and values should have the same rank");
            };
            if heads == 0 || width % heads != 0 {
                return malformed(format!("a width of {width} has not `{name}` = {heads} heads"));
            }
            let split = self.builder.reshape(inputs[i], &[n, length, heads, width / heads])?;
            apart[i] = self.builder.transpose(split, 1, 2)?;
        }
        let output = attention.apply(self.builder, apart)?;
        let joined = self.builder.transpose(output, 1, 2)?;
        self.builder.flatten(joined, 2, 3)
    }
}
