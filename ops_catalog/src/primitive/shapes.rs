//! The effect of each primitive on shapes.

use super::Primitive;
use crate::Invalid;
use crate::tensor::{TensorShape, concatenated};

impl Primitive<u32> {
    /// The output shapes for the given input shapes.
    pub(super) fn output_shapes(
        &self,
        inputs: &[TensorShape],
    ) -> Result<Vec<TensorShape>, Invalid> {
        let input = inputs[0];
        let channels = input.channels();
        let output = match *self {
            Primitive::Conv2d { out, kernel, stride, groups, dilation, padding, .. } => {
                divides("groups", groups, channels)?;
                divides("groups", groups, out)?;
                let window = Window { kernel, stride, padding: padding.unwrap_or(0), dilation };
                window.slide(input)?.with_channels(out).checked()?
            }
            Primitive::MaxPool { kernel, stride, padding }
            | Primitive::AvgPool { kernel, stride, padding } => {
                pooled(input, kernel, stride, padding.unwrap_or(0))?
            }
            Primitive::Linear { out, .. } => linear(input, out)?,
            Primitive::SelfAttention { heads } => {
                divides("heads", heads, channels)?;
                input
            }
            Primitive::GlobalAvgPool => {
                let (n, c, ..) = map(input)?;
                TensorShape::Map { n, c, h: 1, w: 1 }
            }
            Primitive::BatchNorm | Primitive::SqueezeExcite { .. } => {
                map(input)?;
                input
            }
            Primitive::Shuffle { groups } => {
                map(input)?;
                divides("groups", groups, channels)?;
                input
            }
            Primitive::Upsample { scale } => upsampled(input, scale)?,
            Primitive::Add | Primitive::Mul => alike(inputs)?,
            Primitive::Concat => concatenated(inputs)?,
            Primitive::Split { parts } => {
                let widths = split_widths(parts, channels)?;
                return Ok(widths.map(|width| input.with_channels(width)).collect());
            }
            Primitive::ToTokens { class_token } => tokens_of(input, class_token)?,
            Primitive::ClassToken => first_token(input)?,
            Primitive::LayerNorm
            | Primitive::LayerScale
            | Primitive::Relu
            | Primitive::Relu6
            | Primitive::Hardswish
            | Primitive::Silu
            | Primitive::Gelu
            | Primitive::Sigmoid
            | Primitive::Identity => input,
        };
        Ok(vec![output])
    }
}

fn pooled(
    input: TensorShape,
    kernel: u32,
    stride: u32,
    padding: u32,
) -> Result<TensorShape, Invalid> {
    if padding > kernel / 2 {
        return Err(Invalid::here(format!(
            "padding {padding} is more than half of the window {kernel}"
        )));
    }
    Window { kernel, stride, padding, dilation: 1 }.slide(input)?.checked()
}

fn linear(input: TensorShape, out: u32) -> Result<TensorShape, Invalid> {
    match input {
        TensorShape::Map { h: 1, w: 1, .. } | TensorShape::Tokens { .. } => {
            input.with_channels(out).checked()
        }
        TensorShape::Map { .. } => Err(Invalid::here(format!(
            "takes tokens or a 1x1 map, but its input is {input}: put a global_avg_pool before it, \
             or use a conv2d with kernel 1"
        ))),
    }
}

fn upsampled(input: TensorShape, scale: u32) -> Result<TensorShape, Invalid> {
    let (n, c, h, w) = map(input)?;
    let grown = |size: u32| {
        size.checked_mul(scale)
            .ok_or_else(|| Invalid::here(format!("{size} * {scale} is too large")))
    };
    TensorShape::Map { n, c, h: grown(h)?, w: grown(w)? }.checked()
}

/// The common shape of all inputs.
fn alike(inputs: &[TensorShape]) -> Result<TensorShape, Invalid> {
    let first = inputs[0];
    match inputs.iter().find(|&&shape| shape != first) {
        Some(other) => Err(Invalid::here(format!("its inputs differ: {first} and {other}"))),
        None => Ok(first),
    }
}

fn tokens_of(input: TensorShape, class_token: bool) -> Result<TensorShape, Invalid> {
    let (n, c, h, w) = map(input)?;
    let l = u64::from(h) * u64::from(w) + u64::from(class_token);
    let l = u32::try_from(l).map_err(|_| Invalid::here(format!("{l} tokens are too many")))?;
    TensorShape::Tokens { n, l, c }.checked()
}

fn first_token(input: TensorShape) -> Result<TensorShape, Invalid> {
    match input {
        TensorShape::Tokens { n, c, .. } => Ok(TensorShape::Map { n, c, h: 1, w: 1 }),
        TensorShape::Map { .. } => {
            Err(Invalid::here(format!("takes tokens, but its input is {input}")))
        }
    }
}

/// Batch, channels, height and width of a map.
fn map(input: TensorShape) -> Result<(u32, u32, u32, u32), Invalid> {
    match input {
        TensorShape::Map { n, c, h, w } => Ok((n, c, h, w)),
        TensorShape::Tokens { .. } => {
            Err(Invalid::here(format!("takes a map [n, c, h, w], but its input is {input}")))
        }
    }
}

fn divides(what: &str, part: u32, channels: u32) -> Result<(), Invalid> {
    if part > 0 && channels.is_multiple_of(part) {
        return Ok(());
    }
    Err(Invalid::here(format!("{what} {part} does not divide the {channels} channels")))
}

/// Widths of the parts of a split, as with `torch.chunk`: one width for all, and the rest for the last.
fn split_widths(parts: u32, channels: u32) -> Result<impl Iterator<Item = u32>, Invalid> {
    let width = channels.div_ceil(parts.max(1)).max(1);
    if channels.div_ceil(width) != parts {
        return Err(Invalid::here(format!(
            "{channels} channels can't be split into {parts} parts: parts of {width} channels are {}",
            channels.div_ceil(width)
        )));
    }
    Ok((0..parts).map(move |part| width.min(channels - part * width)))
}

/// A window that slides over a map.
struct Window {
    kernel: u32,
    stride: u32,
    padding: u32,
    dilation: u32,
}

impl Window {
    fn slide(&self, input: TensorShape) -> Result<TensorShape, Invalid> {
        let (n, c, h, w) = map(input)?;
        match (self.places(h), self.places(w)) {
            (Some(h), Some(w)) => Ok(TensorShape::Map { n, c, h, w }),
            _ => Err(Invalid::here(format!(
                "a window of {} (dilation {}, padding {}) does not fit an input of {h}x{w}",
                self.kernel, self.dilation, self.padding
            ))),
        }
    }

    /// Places along one dimension: `floor((size + 2 padding - dilation (kernel - 1) - 1) / stride)
    /// + 1`, as in the documentation of `torch.nn.Conv2d`.
    fn places(&self, size: u32) -> Option<u32> {
        let reach = u64::from(self.dilation) * u64::from(self.kernel - 1) + 1;
        let padded = u64::from(size) + 2 * u64::from(self.padding);
        let span = padded.checked_sub(reach)?;
        u32::try_from(span / u64::from(self.stride) + 1).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn channels_are_split_as_torch_chunk_splits_them() {
        let split =
            |parts, channels| split_widths(parts, channels).map(Iterator::collect::<Vec<_>>);
        assert_eq!(split(2, 8), Ok(vec![4, 4]));
        assert_eq!(split(2, 9), Ok(vec![5, 4]));
        assert_eq!(split(3, 7), Ok(vec![3, 3, 1]));
        assert_eq!(split(1, 1), Ok(vec![1]));
        let said = split(4, 6).unwrap_err().to_string();
        assert_eq!(said, "6 channels can't be split into 4 parts: parts of 2 channels are 3");
        for (parts, channels) in [(2, 1), (0, 4), (64, 63), (5, 0)] {
            assert!(split(parts, channels).is_err(), "{parts} {channels}");
        }
    }

    #[test]
    fn windows_are_counted_as_torch_counts_them() {
        for (size, kernel, stride, padding, dilation, expected) in [
            (224, 3, 2, 1, 1, Some(112)),
            (7, 2, 2, 0, 1, Some(3)),
            (5, 3, 1, 2, 2, Some(5)),
            (2, 3, 1, 0, 1, None),
            (1, 2, 2, 0, 1, None),
        ] {
            let window = Window { kernel, stride, padding, dilation };
            assert_eq!(window.places(size), expected, "{size} {kernel} {stride}");
        }
    }

    proptest! {
        /// Counted the slow way: a place is a start from which the whole window lies on the padded map.
        #[test]
        fn a_window_is_placed_wherever_it_fits(
            size in 1u32..40, kernel in 1u32..8, stride in 1u32..5, padding in 0u32..4, dilation in 1u32..4,
        ) {
            let padded = size + 2 * padding;
            let starts = (0..padded).step_by(stride as usize);
            let counted = starts.filter(|start| start + dilation * (kernel - 1) < padded).count();
            let places = Window { kernel, stride, padding, dilation }.places(size);
            prop_assert_eq!(places.unwrap_or(0) as usize, counted);
        }
    }
}
