//! Convolutions, poolings and resizes of ONNX.

use super::call::Call;
use crate::build::dimensions::{small, smalls};
use crate::error::{Step, malformed, unsupported};
use crate::graph::{Operation, Pooling, ValueId};

/// Strides, dilations and paddings of a window.
struct Window {
    kernel: Vec<u32>,
    stride: Vec<u32>,
    dilation: Vec<u32>,
    before: Vec<u32>,
    after: Vec<u32>,
}

/// How the padding of a window follows from the sizes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum AutoPad {
    /// It does not.
    NotSet,
    None,
    /// As many outputs as strides, the odd element after the input.
    SameUpper,
    SameLower,
}

/// A total padding as one before and one after.
fn halves(total: u32, auto: AutoPad) -> (u32, u32) {
    let (small, large) = (total / 2, total - total / 2);
    if auto == AutoPad::SameLower { (large, small) } else { (small, large) }
}

impl Call<'_, '_> {
    fn per_dimension(&self, name: &str, rank: usize, default: u32) -> Step<Vec<u32>> {
        match self.ints(name)? {
            None => Ok(vec![default; rank]),
            Some(list) if list.len() == rank => smalls(&list),
            Some(list) => {
                malformed(format!("`{name}` is {list:?}, and it has {rank} spatial dimensions"))
            }
        }
    }

    fn auto_pad(&self) -> Step<AutoPad> {
        Ok(match self.text("auto_pad", "NOTSET")? {
            "NOTSET" => AutoPad::NotSet,
            "VALID" => AutoPad::None,
            "SAME_UPPER" => AutoPad::SameUpper,
            "SAME_LOWER" => AutoPad::SameLower,
            other => return malformed(format!("`auto_pad` is `{}`", crate::error::shown(other))),
        })
    }

    fn pads(&self, rank: usize) -> Step<(Vec<u32>, Vec<u32>)> {
        let pads = self.ints("pads")?.unwrap_or_else(|| vec![0; 2 * rank]);
        if pads.len() != 2 * rank {
            return malformed(format!("`pads` is {pads:?}, and it has {rank} spatial dimensions"));
        }
        if pads.iter().any(|&pad| pad < 0) {
            return unsupported("a negative padding");
        }
        Ok((smalls(&pads[..rank])?, smalls(&pads[rank..])?))
    }

    /// The spatial sizes of the input.
    fn spatial(&self) -> Step<Vec<u64>> {
        let dims = self.builder.dims(self.need(0)?);
        match dims.get(2..) {
            Some(spatial @ ([_] | [_, _])) => Ok(spatial.to_vec()),
            Some([_, _, _, ..]) => unsupported("more than two spatial dimensions"),
            _ => malformed(format!("{dims:?} has no spatial dimensions")),
        }
    }

    fn window(&self, kernel: Vec<u32>) -> Step<Window> {
        self.builder.batched(self.need(0)?, kernel.len())?;
        let spatial = self.spatial()?;
        let rank = spatial.len();
        let stride = self.per_dimension("strides", rank, 1)?;
        let dilation = self.per_dimension("dilations", rank, 1)?;
        if kernel.len() != rank || stride.contains(&0) {
            return malformed(format!("a kernel of {kernel:?} at strides of {stride:?}"));
        }
        let auto = self.auto_pad()?;
        let (before, after) = match auto {
            AutoPad::NotSet => self.pads(rank)?,
            AutoPad::None => (vec![0; rank], vec![0; rank]),
            _ => {
                let total = |i: usize| {
                    let stride = u64::from(stride[i]);
                    let reach = u64::from(kernel[i].saturating_sub(1)) * u64::from(dilation[i]) + 1;
                    let covered = (spatial[i].div_ceil(stride).saturating_sub(1)) * stride + reach;
                    u32::try_from(covered.saturating_sub(spatial[i])).unwrap_or(u32::MAX)
                };
                (0..rank).map(|i| halves(total(i), auto)).unzip()
            }
        };
        Ok(Window { kernel, stride, dilation, before, after })
    }

    /// The size of the kernel, from the weight.
    fn kernel(&self) -> Step<Vec<u32>> {
        let weight = self.need(1)?;
        if !self.builder.is_constant(weight) {
            return unsupported("its weight is computed from the model's input");
        }
        let dims = self.builder.dims(weight);
        let size = |&k: &u64| small(i64::try_from(k).unwrap_or(i64::MAX));
        dims.get(2..).unwrap_or_default().iter().map(size).collect()
    }

    fn with_weights(&mut self, operation: Operation) -> Step<ValueId> {
        let mut inputs = vec![self.need(0)?, self.need(1)?];
        inputs.extend(self.input(2));
        self.builder.apply(operation, &inputs)
    }

    pub(super) fn conv(&mut self) -> Step<ValueId> {
        let Window { stride, dilation, before, after, .. } = self.window(self.kernel()?)?;
        let groups = small(self.int("group", 1)?)?;
        self.with_weights(Operation::Conv { stride, dilation, before, after, groups })
    }

    pub(super) fn conv_transpose(&mut self) -> Step<ValueId> {
        let (kernel, spatial) = (self.kernel()?, self.spatial()?);
        let rank = spatial.len();
        let stride = self.per_dimension("strides", rank, 1)?;
        let dilation = self.per_dimension("dilations", rank, 1)?;
        let output_padding = self.per_dimension("output_padding", rank, 0)?;
        if kernel.len() != rank {
            return malformed(format!("a kernel of {kernel:?} on {spatial:?}"));
        }
        let auto = self.auto_pad()?;
        let wanted = match (self.ints("output_shape")?, auto) {
            (Some(list), _) if list.len() == rank => Some(smalls(&list)?),
            (Some(list), _) => return malformed(format!("`output_shape` is {list:?}")),
            (None, AutoPad::SameUpper | AutoPad::SameLower) => {
                let size = |i: usize| {
                    small(i64::try_from(spatial[i] * u64::from(stride[i])).unwrap_or(i64::MAX))
                };
                Some((0..rank).map(size).collect::<Step<_>>()?)
            }
            (None, _) => None,
        };
        let (before, after) = match wanted {
            Some(wanted) => {
                let total = |i: usize| {
                    let full = u64::from(stride[i]) * spatial[i].saturating_sub(1)
                        + u64::from(output_padding[i])
                        + u64::from(kernel[i].saturating_sub(1)) * u64::from(dilation[i])
                        + 1;
                    match full.checked_sub(u64::from(wanted[i])) {
                        Some(total) => small(i64::try_from(total).unwrap_or(i64::MAX)),
                        None => unsupported("its output is larger than its windows reach"),
                    }
                };
                let totals: Vec<u32> = (0..rank).map(total).collect::<Step<_>>()?;
                totals.into_iter().map(|total| halves(total, auto)).unzip()
            }
            None if auto == AutoPad::None => (vec![0; rank], vec![0; rank]),
            None => self.pads(rank)?,
        };
        let groups = small(self.int("group", 1)?)?;
        self.with_weights(Operation::ConvTranspose {
            stride,
            dilation,
            before,
            after,
            output_padding,
            groups,
        })
    }

    pub(super) fn pool(&mut self, maximum: bool) -> Step<ValueId> {
        let kernel = self.ints("kernel_shape")?.map_or(0, |kernel| kernel.len());
        self.builder.batched(self.need(0)?, kernel)?;
        let rank = self.spatial()?.len();
        let kernel = self.per_dimension("kernel_shape", rank, 0)?;
        let Window { kernel, stride, dilation, before, after } = self.window(kernel)?;
        let pooling = match maximum {
            true => Pooling::Max,
            false => Pooling::Average { count_include_pad: self.int("count_include_pad", 0)? != 0 },
        };
        let ceil_mode = self.int("ceil_mode", 0)? != 0;
        let x = self.need(0)?;
        let operation =
            Operation::Pool { pooling, kernel, stride, dilation, before, after, ceil_mode };
        self.builder.apply(operation, &[x])
    }

    pub(super) fn global_pool(&mut self, maximum: bool) -> Step<ValueId> {
        let rank = self.spatial()?.len();
        let x = self.need(0)?;
        let pooling = match maximum {
            true => Pooling::Max,
            false => Pooling::Average { count_include_pad: true },
        };
        let dims = [&self.builder.dims(x)[..2], &vec![1; rank]].concat();
        self.builder.apply_to(Operation::AdaptivePool(pooling), &[x], Some(&dims))
    }

    pub(super) fn resize(&mut self) -> Step<ValueId> {
        let x = self.need(0)?;
        let dims = self.builder.dims(x).to_vec();
        let linear = match self.text("mode", "nearest")? {
            "nearest" => false,
            "linear" => true,
            other => {
                return unsupported(format!("the mode `{other}`: nearest and linear are read"));
            }
        };
        let coordinates = self.text("coordinate_transformation_mode", "half_pixel")?;
        let known = match linear {
            true => matches!(coordinates, "half_pixel" | "pytorch_half_pixel"),
            false => matches!(coordinates, "half_pixel" | "pytorch_half_pixel" | "asymmetric"),
        };
        if !known || self.int("antialias", 0)? != 0 {
            return unsupported(format!(
                "the coordinates `{coordinates}`: half_pixel is read (align_corners=False), without antialias"
            ));
        }
        let wanted = self.resized(&dims)?;
        if wanted == dims {
            return Ok(x);
        }
        if dims.len() < 3 || wanted[..2] != dims[..2] || dims.len() > 4 {
            return unsupported(format!(
                "{dims:?} becomes {wanted:?}: one or two spatial sizes may change"
            ));
        }
        self.builder.apply_to(Operation::Resize { linear }, &[x], Some(&wanted))
    }

    fn resized(&self, dims: &[u64]) -> Step<Vec<u64>> {
        let axes: Vec<usize> = match self.ints("axes")? {
            Some(list) => list
                .iter()
                .map(|&n| crate::build::dimensions::axis(n, dims.len()))
                .collect::<Step<_>>()?,
            None => (0..dims.len()).collect(),
        };
        let mut wanted = dims.to_vec();
        let is_empty = |id: ValueId| self.builder.dims(id) == [0];
        if let Some(sizes) = self.input(3).filter(|&id| !is_empty(id)) {
            if self.text("keep_aspect_ratio_policy", "stretch")? != "stretch" {
                return unsupported("sizes that keep the ratio of height and width");
            }
            let sizes = self.builder.list(sizes, "the output's size")?;
            if sizes.len() != axes.len() {
                return malformed(format!("the sizes {sizes:?} do not fit {dims:?}"));
            }
            for (&at, &size) in axes.iter().zip(&sizes) {
                wanted[at] = u64::from(small(size)?);
            }
            return Ok(wanted);
        }
        let Some(scales) = self.input(2).filter(|&id| !is_empty(id)) else {
            return malformed("it has neither scales nor sizes");
        };
        let Some(scales) = self.builder.numbers(scales) else {
            return unsupported("its scales depend on the model's input");
        };
        if scales.len() != axes.len() || !scales.iter().all(|scale| (0.0..1e6).contains(scale)) {
            return malformed(format!("the scales {scales:?} do not fit {dims:?}"));
        }
        for (&at, &scale) in axes.iter().zip(scales) {
            // Dimensions are below 2^40, and scales below a million.
            wanted[at] = (dims[at] as f64 * scale).floor() as u64;
        }
        Ok(wanted)
    }

    /// Blocks of positions as channels, and back. The order of channels is PyTorch's in the mode CRD only.
    pub(super) fn blocks(&mut self, to_space: bool) -> Step<ValueId> {
        let x = self.need(0)?;
        let block = small(self.int("blocksize", 1)?)?;
        let channels = self.builder.dims(x).get(1).copied().unwrap_or(0);
        if !to_space {
            let out = self.builder.apply(Operation::PixelUnshuffle { block }, &[x])?;
            let groups = small(i64::try_from(channels).unwrap_or(i64::MAX))?;
            return self.shuffle(out, groups, u64::from(block) * u64::from(block));
        }
        let square = small(i64::from(block) * i64::from(block))?;
        let x = match self.text("mode", "DCR")? {
            "CRD" => x,
            "DCR" if square > 0 => self.shuffle(x, square, channels / u64::from(square))?,
            other => return malformed(format!("the mode `{}`", crate::error::shown(other))),
        };
        self.builder.apply(Operation::PixelShuffle { block }, &[x])
    }

    /// Interleaves groups of channels, where that changes something.
    fn shuffle(&mut self, x: ValueId, groups: u32, size: u64) -> Step<ValueId> {
        if groups <= 1 || size <= 1 {
            return Ok(x);
        }
        self.builder.apply(Operation::ChannelShuffle { groups }, &[x])
    }
}
