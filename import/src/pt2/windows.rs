//! Convolutions, poolings and resizes of `aten`.

use super::call::{Arg, Call};
use crate::build::dimensions::{small, smalls};
use crate::error::{Step, malformed, unsupported};
use crate::graph::{Operation, Pooling, ValueId};

impl Call<'_, '_> {
    /// One number per spatial dimension. A single one stands for all.
    fn each(&self, name: &str, rank: usize, default: u32) -> Step<Vec<u32>> {
        let list = smalls(&self.ints(name)?)?;
        match list.as_slice() {
            [] => Ok(vec![default; rank]),
            [number] => Ok(vec![*number; rank]),
            _ if list.len() == rank => Ok(list),
            _ => malformed(format!("`{name}` is {list:?}, and it has {rank} spatial dimensions")),
        }
    }

    /// Number of spatial dimensions of the input.
    fn spatial(&self) -> Step<usize> {
        let x = self.first()?;
        let kernel = match self.tensor("weight")? {
            Some(weight) => self.builder.rank(weight).saturating_sub(2),
            None => self.ints("kernel_size")?.len(),
        };
        if kernel != 1 {
            // One size can stand for two dimensions.
            self.builder.batched(x, kernel)?;
        }
        let dims = self.builder.dims(x);
        match dims.len().checked_sub(2) {
            Some(rank @ 1..=2) => Ok(rank),
            Some(rank) if rank > 2 => unsupported("more than two spatial dimensions"),
            _ => unsupported(format!(
                "an input of {dims:?}: a batch, channels and positions are read"
            )),
        }
    }

    fn weight(&self) -> Step<ValueId> {
        let weight = self.need("weight")?;
        match self.builder.is_constant(weight) {
            true => Ok(weight),
            false => unsupported("its weight is computed from the model's input"),
        }
    }

    fn with_weights(&mut self, operation: Operation) -> Step<ValueId> {
        let mut inputs = vec![self.first()?, self.weight()?];
        inputs.extend(self.tensor("bias")?);
        self.builder.apply(operation, &inputs)
    }

    pub(super) fn conv(&mut self) -> Step<ValueId> {
        if self.bool("transposed", false)? {
            return self.conv_transpose();
        }
        let rank = self.spatial()?;
        let stride = self.each("stride", rank, 1)?;
        let dilation = self.each("dilation", rank, 1)?;
        let groups = small(self.int("groups", 1)?)?;
        let named = self.arguments.iter().find(|(name, _)| *name == "padding");
        let (before, after) = match named {
            Some((_, Arg::Text("valid"))) => (vec![0; rank], vec![0; rank]),
            Some((_, Arg::Text("same"))) => {
                let kernel = self.builder.dims(self.weight()?).get(2..).unwrap_or_default();
                let total = |(&k, &d): (&u64, &u32)| {
                    let total = k.saturating_sub(1).saturating_mul(u64::from(d));
                    small(i64::try_from(total).unwrap_or(i64::MAX))
                };
                let totals = kernel.iter().zip(&dilation).map(total).collect::<Step<Vec<u32>>>()?;
                totals.into_iter().map(|total| (total / 2, total - total / 2)).unzip()
            }
            _ => {
                let padding = self.each("padding", rank, 0)?;
                (padding.clone(), padding)
            }
        };
        self.with_weights(Operation::Conv { stride, dilation, before, after, groups })
    }

    pub(super) fn conv_transpose(&mut self) -> Step<ValueId> {
        let rank = self.spatial()?;
        let padding = self.each("padding", rank, 0)?;
        let operation = Operation::ConvTranspose {
            stride: self.each("stride", rank, 1)?,
            dilation: self.each("dilation", rank, 1)?,
            before: padding.clone(),
            after: padding,
            output_padding: self.each("output_padding", rank, 0)?,
            groups: small(self.int("groups", 1)?)?,
        };
        self.with_weights(operation)
    }

    pub(super) fn pool(&mut self, maximum: bool) -> Step<ValueId> {
        let rank = self.spatial()?;
        let x = self.first()?;
        if self.has("divisor_override") {
            return unsupported("a mean with another divisor than the size of its window");
        }
        let kernel = self.each("kernel_size", rank, 1)?;
        let padding = self.each("padding", rank, 0)?;
        let stride = match self.ints("stride")?.is_empty() {
            true => kernel.clone(),
            false => self.each("stride", rank, 1)?,
        };
        let pooling = match maximum {
            true => Pooling::Max,
            false => Pooling::Average { count_include_pad: self.bool("count_include_pad", true)? },
        };
        let operation = Operation::Pool {
            pooling,
            kernel,
            stride,
            dilation: self.each("dilation", rank, 1)?,
            before: padding.clone(),
            after: padding,
            ceil_mode: self.bool("ceil_mode", false)?,
        };
        self.builder.apply(operation, &[x])
    }

    pub(super) fn adaptive_pool(&mut self, maximum: bool) -> Step<ValueId> {
        self.spatial()?;
        let (x, dims) = (self.first()?, self.dims());
        if self.builder.dims(x) == dims {
            return Ok(x);
        }
        let pooling = match maximum {
            true => Pooling::Max,
            false => Pooling::Average { count_include_pad: true },
        };
        self.builder.apply_to(Operation::AdaptivePool(pooling), &[x], Some(&dims))
    }

    pub(super) fn resize(&mut self, linear: bool) -> Step<ValueId> {
        if linear && self.bool("align_corners", false)? {
            return unsupported("a linear resize with align_corners=True: False is read");
        }
        let (x, dims) = (self.first()?, self.dims());
        if self.builder.dims(x) == dims {
            return Ok(x);
        }
        self.builder.apply_to(Operation::Resize { linear }, &[x], Some(&dims))
    }

    pub(super) fn blocks(&mut self, name: &str) -> Step<ValueId> {
        let x = self.first()?;
        let operation = match name {
            "pixel_shuffle" => {
                Operation::PixelShuffle { block: small(self.int("upscale_factor", 1)?)? }
            }
            "pixel_unshuffle" => {
                Operation::PixelUnshuffle { block: small(self.int("downscale_factor", 1)?)? }
            }
            _ => Operation::ChannelShuffle { groups: small(self.int("groups", 1)?)? },
        };
        self.builder.apply(operation, &[x])
    }
}
