//! Matrix products, attention and tables of `aten`.

use super::call::Call;
use crate::error::{Step, malformed};
use crate::graph::{Binary, Kind, Operation, ValueId};
use crate::products::{Attention, einsum, linear, matmul};

impl Call<'_, '_> {
    pub(super) fn product(&mut self, name: &str) -> Step<ValueId> {
        match name {
            "linear" => self.linear(),
            "addmm" => self.added(["mat1", "mat2"]),
            "baddbmm" => self.added(["batch1", "batch2"]),
            "einsum" => {
                let equation = self.text("equation", "")?;
                let operands = self.tensors("tensors")?.into_iter().flatten().collect::<Vec<_>>();
                einsum(self.builder, equation, &operands)
            }
            _ => {
                let right =
                    ["mat2", "other", "tensor", "vec"].into_iter().find(|name| self.has(name));
                let Some(right) = right else { return malformed("its second argument is missing") };
                let (left, right) = (self.first()?, self.need(right)?);
                matmul(self.builder, left, right)
            }
        }
    }

    fn linear(&mut self) -> Step<ValueId> {
        let (x, weight) = (self.first()?, self.need("weight")?);
        let bias = self.tensor("bias")?;
        if self.builder.is_constant(weight)
            && self.builder.rank(weight) == 2
            && !self.builder.is_constant(x)
        {
            return linear(self.builder, x, weight, true, bias);
        }
        let rank = self.builder.rank(weight);
        if rank < 2 {
            return malformed("its weight is no matrix");
        }
        let turned = self.builder.transpose(weight, rank - 2, rank - 1)?;
        let product = matmul(self.builder, x, turned)?;
        match bias {
            Some(bias) => self.builder.binary(Binary::Add, product, bias),
            None => Ok(product),
        }
    }

    /// `beta * self + alpha * left @ right`.
    fn added(&mut self, [left, right]: [&str; 2]) -> Step<ValueId> {
        let (added, left, right) = (self.first()?, self.need(left)?, self.need(right)?);
        let (alpha, beta) = (self.float("alpha", 1.0)?, self.float("beta", 1.0)?);
        let right = self.scaled(right, alpha)?;
        if beta == 0.0 {
            return matmul(self.builder, left, right);
        }
        let added = self.scaled(added, beta)?;
        let is_linear = self.builder.is_constant(right)
            && self.builder.rank(right) == 2
            && !self.builder.is_constant(left);
        if is_linear {
            return linear(self.builder, left, right, false, Some(added));
        }
        let product = matmul(self.builder, left, right)?;
        self.builder.binary(Binary::Add, product, added)
    }

    pub(super) fn scaled(&mut self, x: ValueId, factor: f64) -> Step<ValueId> {
        if (factor - 1.0).abs() < f64::EPSILON {
            return Ok(x);
        }
        let factor = self.builder.scalar(factor, Kind::Float)?;
        self.builder.binary(Binary::Mul, x, factor)
    }

    pub(super) fn attention(&mut self) -> Step<ValueId> {
        if self.float("dropout_p", 0.0)? != 0.0 {
            return self.builder.training();
        }
        let mask = match self.tensor("attn_mask")? {
            Some(mask) => Some(mask),
            None => self.tensor("attn_bias")?,
        };
        let attention = Attention {
            mask,
            causal: self.bool("is_causal", false)?,
            scale: self.maybe_float("scale")?,
        };
        let inputs = [self.need("query")?, self.need("key")?, self.need("value")?];
        attention.apply(self.builder, inputs)
    }

    pub(super) fn embedding(&mut self) -> Step<ValueId> {
        let (table, numbers) = (self.first()?, self.need("indices")?);
        self.builder.apply(Operation::Embedding, &[table, numbers])
    }
}
