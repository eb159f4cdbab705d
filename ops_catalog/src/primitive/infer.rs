//! The effect of each primitive on shapes, and its cost.

use super::cost::{product, weights};
use super::tokens::{
    Windows, concatenated_tokens, folded, map_of, mixed, prepended, selected, tokens_of,
    transposed, unfolded,
};
use super::windows::{
    Along, Grown, Window, check_factor, checked_padding, pooled, reach, resolved,
};
use super::{Arity, Cost, Dimension, Padding, Pair, Primitive, Sides, make_divisible};
use crate::Invalid;
use crate::tensor::{TensorShape, concatenated};

/// The outputs and the work of a primitive.
#[derive(Debug)]
pub(super) struct Effect {
    outputs: Vec<TensorShape>,
    /// Multiply-accumulates.
    flops: u64,
    params: u64,
    /// Stored elements that are no parameters.
    statistics: u64,
    moves: Moves,
}

/// What is read and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moves {
    InputsAndOutputs,
    /// The first input and the outputs.
    OneInput,
    Outputs,
    /// The outputs are views of the inputs.
    Nothing,
}

impl Effect {
    /// One output, from work that counts nothing.
    fn of(output: TensorShape) -> Effect {
        Effect {
            outputs: vec![output],
            flops: 0,
            params: 0,
            statistics: 0,
            moves: Moves::InputsAndOutputs,
        }
    }

    /// An output that is larger or smaller than the input, and so may be too large.
    fn sized(output: TensorShape) -> Result<Effect, Invalid> {
        Ok(Effect::of(output.checked()?))
    }

    /// One output, made from the first input only.
    fn reading(output: TensorShape) -> Effect {
        Effect { moves: Moves::OneInput, ..Effect::of(output) }
    }

    fn view(outputs: Vec<TensorShape>) -> Effect {
        Effect { outputs, flops: 0, params: 0, statistics: 0, moves: Moves::Nothing }
    }

    fn working(self, flops: u64) -> Effect {
        Effect { flops, ..self }
    }

    fn learning(self, params: u64) -> Effect {
        Effect { params, ..self }
    }
}

impl Primitive<u32> {
    /// Output shapes and cost for the given input shapes. Defaults that depend on other parameters or on the input are
    /// filled in.
    ///
    /// # Errors
    /// When the number of inputs is wrong, or their shapes are impossible.
    pub fn infer(&mut self, inputs: &[TensorShape]) -> Result<(Vec<TensorShape>, Cost), Invalid> {
        let enough = match self.arity() {
            Arity::Exactly(count) => inputs.len() == count,
            Arity::AtLeastTwo => inputs.len() >= 2,
        };
        if !enough {
            return Err(Invalid::here(format!("{} has {} inputs", self.name(), inputs.len())));
        }
        let Effect { outputs, flops, params, statistics, moves } = self.effect(inputs)?;
        let elements =
            |shapes: &[TensorShape]| shapes.iter().map(TensorShape::elements).sum::<u64>();
        let activation_elements = match moves {
            Moves::InputsAndOutputs => elements(inputs) + elements(&outputs),
            Moves::OneInput => elements(&inputs[..1]) + elements(&outputs),
            Moves::Outputs => elements(&outputs),
            Moves::Nothing => 0,
        };
        let cost =
            Cost { flops, params, weight_elements: params + statistics, activation_elements };
        Ok((outputs, cost))
    }

    fn effect(&mut self, inputs: &[TensorShape]) -> Result<Effect, Invalid> {
        let input = inputs[0];
        let channels = u64::from(input.channels());
        Ok(match self {
            Primitive::Conv2d { out, kernel, stride, groups, dilation, padding, bias } => {
                let (out, groups) = (*out, *groups);
                divides("groups", groups, input.channels())?;
                divides("groups", groups, out)?;
                let window = window(*kernel, *stride, *dilation, padding, false, input)?;
                let output = window.slide(input)?.with_channels(out).checked()?;
                convolution(output, output.elements(), &kernel.parts(), input, groups, *bias)?
            }
            Primitive::Conv1d { out, kernel, stride, groups, dilation, padding, causal, bias } => {
                let (out, groups) = (*out, *groups);
                divides("groups", groups, input.channels())?;
                divides("groups", groups, out)?;
                check_factor("dilation", *dilation)?;
                let ends = conv1d_padding(padding, *kernel, *dilation, *causal)?;
                let window = Along::new(reach(*kernel, *dilation), *stride, ends, false);
                let output = slid_along(&window, input)?.with_channels(out).checked()?;
                convolution(output, output.elements(), &[*kernel], input, groups, *bias)?
            }
            Primitive::ConvTranspose2d {
                out,
                kernel,
                stride,
                groups,
                dilation,
                padding,
                output_padding,
                bias,
            } => {
                let (out, groups) = (*out, *groups);
                divides("groups", groups, input.channels())?;
                divides("groups", groups, out)?;
                let grown = Grown {
                    kernel: *kernel,
                    stride: *stride,
                    dilation: *dilation,
                    output_padding: *output_padding,
                };
                let sides = grown.resolved(*padding)?;
                *padding = Some(Padding::Sides(sides));
                let output = grown.output(sides, input)?.with_channels(out).checked()?;
                // Each element of the input is multiplied with each weight of its group.
                let area: u64 = kernel.parts().into_iter().map(u64::from).product();
                let per_input = product(&[area, u64::from(out / groups)])?;
                let params =
                    weights(&[channels, per_input])? + if *bias { u64::from(out) } else { 0 };
                let flops = product(&[input.elements(), per_input])?;
                Effect::of(output).working(flops).learning(params)
            }
            Primitive::Linear { out, bias } => {
                let output = linear(input, *out)?;
                let out = u64::from(*out);
                let params = weights(&[channels, out])? + if *bias { out } else { 0 };
                let flops = product(&[input.elements(), out])?;
                Effect::of(output).working(flops).learning(params)
            }
            Primitive::BatchNorm => {
                map(input)?;
                let params = 2 * channels;
                // The running mean and variance.
                Effect { statistics: 2 * channels, ..Effect::of(input).learning(params) }
            }
            Primitive::LayerNorm => Effect::of(input).learning(2 * channels),
            Primitive::GroupNorm { groups } => {
                map(input)?;
                divides("groups", *groups, input.channels())?;
                Effect::of(input).learning(2 * channels)
            }
            Primitive::RmsNorm | Primitive::LayerScale | Primitive::LayerShift => {
                Effect::of(input).learning(channels)
            }
            Primitive::Scale | Primitive::Shift => Effect { statistics: 1, ..Effect::of(input) },
            Primitive::ResponseNorm => {
                map(input)?;
                Effect::of(input).learning(2 * channels)
            }
            activation!() | Primitive::Softmax => Effect::of(input),
            Primitive::Prelu { shared } => {
                Effect::of(input).learning(if *shared { 1 } else { channels })
            }
            Primitive::MaxPool { kernel, stride, dilation, padding, ceil_mode } => {
                let window = window(*kernel, *stride, *dilation, padding, *ceil_mode, input)?;
                Effect::of(pooled(&window, input)?)
            }
            Primitive::AvgPool { kernel, stride, padding, ceil_mode, .. } => {
                let once = Pair::square(1);
                let window = window(*kernel, *stride, once, padding, *ceil_mode, input)?;
                Effect::of(pooled(&window, input)?)
            }
            Primitive::AdaptiveAvgPool { size } | Primitive::AdaptiveMaxPool { size } => {
                let (n, c, ..) = map(input)?;
                Effect::sized(TensorShape::Map { n, c, h: size.h, w: size.w })?
            }
            Primitive::GlobalAvgPool => {
                let (n, c) = (input.batch(), input.channels());
                Effect::of(TensorShape::Map { n, c, h: 1, w: 1 })
            }
            Primitive::SelfAttention { heads } => {
                divides("heads", *heads, input.channels())?;
                let (batch, length) = (u64::from(input.batch()), input.positions());
                let projections = product(&[4, batch, length, channels, channels])?;
                let products = product(&[2, batch, length, length, channels])?;
                let params = weights(&[4, channels, channels])? + 4 * channels;
                Effect::of(input).working(projections + products).learning(params)
            }
            Primitive::Attention { heads, kv_heads, causal, position_bias, cosine } => {
                let kv_heads = *kv_heads.get_or_insert(*heads);
                let (output, flops) = mixed(*heads, kv_heads, *causal, inputs)?;
                if *causal && *position_bias {
                    return Err(Invalid::new("position_bias", "a causal attention has none"));
                }
                let biases = [u64::from(*heads), input.positions(), inputs[1].positions()];
                let params = if *position_bias { weights(&biases)? } else { 0 };
                let factors = if *cosine { u64::from(*heads) } else { 0 };
                Effect::of(output).working(flops).learning(params + factors)
            }
            Primitive::ChannelAttention { heads, cosine } => {
                divides("heads", *heads, input.channels())?;
                let heads = u64::from(*heads);
                let batch = u64::from(input.batch());
                let flops = product(&[2, batch, input.positions(), channels, channels / heads])?;
                let factors = if *cosine { heads } else { 0 };
                Effect::of(alike(inputs)?).working(flops).learning(factors)
            }
            Primitive::WindowAttention { heads, window, shift, grid, position_bias, cosine } => {
                divides("heads", *heads, input.channels())?;
                let windows = Windows::of(input, *window, *shift, *grid)?;
                let (positions, length) = (windows.positions, windows.length);
                let projections = product(&[4, positions, channels, channels])?;
                let products = product(&[2, positions, length, channels])?;
                let offsets = if *position_bias { windows.offsets } else { 0 };
                let bias = weights(&[offsets, u64::from(*heads)])?;
                let factors = if *cosine { u64::from(*heads) } else { 0 };
                let params = weights(&[4, channels, channels])? + 4 * channels + bias + factors;
                Effect::of(input).working(projections + products).learning(params)
            }
            Primitive::Rotary { heads } => {
                tokens(input)?;
                divides("heads", *heads, input.channels())?;
                divides("the 2 halves of each head:", *heads * 2, input.channels())?;
                Effect::of(input)
            }
            Primitive::SqueezeExcite { squeeze, divisor, .. } => {
                map(input)?;
                check_factor("divisor", *divisor)?;
                *squeeze = make_divisible(*squeeze, *divisor);
                *divisor = 1;
                let squeeze = u64::from(*squeeze);
                let flops = product(&[2, u64::from(input.batch()), channels, squeeze])?;
                let params = weights(&[2, channels, squeeze])? + squeeze + channels;
                Effect::of(input).working(flops).learning(params)
            }
            Primitive::Add | Primitive::Sub => Effect::of(alike(inputs)?),
            Primitive::Mul => Effect::of(scaled(inputs)?),
            Primitive::Concat => Effect::of(concatenated(inputs)?),
            Primitive::ConcatTokens => Effect::sized(concatenated_tokens(inputs)?)?,
            Primitive::Slice { along, start, length, step } => {
                Effect::view(vec![sliced(input, *along, *start, *length, *step)?])
            }
            Primitive::Pad { padding } => {
                let Padding::Sides(sides) = *padding else {
                    return Err(Invalid::new("padding", "`same` needs a window: write numbers"));
                };
                let Sides { top, bottom, left, right } = sides.checked()?;
                let (n, c, h, w) = map(input)?;
                // The sides are small.
                let (h, w) = (h.saturating_add(top + bottom), w.saturating_add(left + right));
                Effect::sized(TensorShape::Map { n, c, h, w })?
            }
            Primitive::Split { parts } => {
                let widths = split_widths(*parts, input.channels())?;
                Effect::view(widths.map(|width| input.with_channels(width)).collect())
            }
            Primitive::Shuffle { groups } => {
                map(input)?;
                divides("groups", *groups, input.channels())?;
                Effect::of(input)
            }
            Primitive::Upsample { scale, .. } => {
                check_factor("scale", *scale)?;
                Effect::sized(upsampled(input, *scale)?)?
            }
            Primitive::SpaceToDepth { block } => {
                check_factor("block", *block)?;
                let (n, c, h, w) = map(input)?;
                divides_map("block", *block, h, w)?;
                let c = grown(c, *block * *block)?;
                Effect::of(TensorShape::Map { n, c, h: h / *block, w: w / *block })
            }
            Primitive::DepthToSpace { block } => {
                check_factor("block", *block)?;
                let (n, c, h, w) = map(input)?;
                divides("the square of block,", *block * *block, c)?;
                let (h, w) = (grown(h, *block)?, grown(w, *block)?);
                Effect::of(TensorShape::Map { n, c: c / (*block * *block), h, w })
            }
            Primitive::Flatten => {
                let all = input.elements() / u64::from(input.batch());
                let c = u32::try_from(all).map_err(|_| Invalid::here("is too large to measure"))?;
                Effect::view(vec![TensorShape::Map { n: input.batch(), c, h: 1, w: 1 }])
            }
            Primitive::Identity => Effect::view(vec![input]),
            Primitive::Zero { out, stride } => {
                let (n, c, h, w) = map(input)?;
                let c = *out.get_or_insert(c);
                let (h, w) = (h.div_ceil(stride.h), w.div_ceil(stride.w));
                let output = TensorShape::Map { n, c, h, w };
                Effect { moves: Moves::Outputs, ..Effect::sized(output)? }
            }
            Primitive::ToTokens { class_token, positions } => {
                let output = tokens_of(input, *class_token)?.checked()?;
                if !*positions && !*class_token {
                    return Ok(Effect::view(vec![output]));
                }
                let positions = if *positions { output.positions() } else { 0 };
                let embeddings = positions + u64::from(*class_token);
                Effect::of(output).learning(weights(&[embeddings, channels])?)
            }
            Primitive::ToMap => {
                let (_, _, h, w) = map(inputs[1])?;
                Effect::view(vec![map_of(input, [h, w])?])
            }
            Primitive::ToMapOf { size } => Effect::view(vec![map_of(input, [size.h, size.w])?]),
            Primitive::Transpose => Effect::view(vec![transposed(input)?]),
            Primitive::Unfold { patch } => Effect::of(unfolded(input, *patch)?),
            // The second input is not read.
            Primitive::Fold { patch } => Effect::reading(folded(input, inputs[1], *patch)?),
            Primitive::Embedding { rows, out } => {
                let TensorShape::Map { n, c: 1, h: l, w: 1 } = input else {
                    return Err(Invalid::here(format!(
                        "takes numbers, a map of one channel and width 1, but its input is {input}"
                    )));
                };
                let params = weights(&[u64::from(*rows), u64::from(*out)])?;
                Effect::sized(TensorShape::Tokens { n, l, c: *out })?.learning(params)
            }
            Primitive::PositionEmbedding => {
                Effect::of(input).learning(weights(&[input.positions(), channels])?)
            }
            Primitive::PrependTokens { count } => {
                let params = weights(&[u64::from(*count), channels])?;
                Effect::sized(prepended(input, *count)?)?.learning(params)
            }
            Primitive::ClassToken => Effect::of(selected(input, 0)?),
            Primitive::SelectToken { index } => Effect::of(selected(input, *index)?),
        })
    }
}

/// A window with its padding in numbers, which are filled in.
fn window(
    kernel: Pair<u32>,
    stride: Pair<u32>,
    dilation: Pair<u32>,
    padding: &mut Option<Padding>,
    ceil: bool,
    input: TensorShape,
) -> Result<Window, Invalid> {
    let sides = resolved(*padding, kernel, stride, dilation, input)?;
    *padding = Some(Padding::Sides(sides));
    Ok(Window { kernel, stride, dilation, sides, ceil })
}

/// A convolution. Each of `places` elements is `kernel * channels / groups` products.
fn convolution(
    output: TensorShape,
    places: u64,
    kernel: &[u32],
    input: TensorShape,
    groups: u32,
    bias: bool,
) -> Result<Effect, Invalid> {
    let out = u64::from(output.channels());
    let area = kernel.iter().map(|&size| u64::from(size)).product();
    let per_output = product(&[area, u64::from(input.channels() / groups)])?;
    let params = weights(&[out, per_output])? + if bias { out } else { 0 };
    Ok(Effect::of(output).working(product(&[places, per_output])?).learning(params))
}

/// The padding of the ends of a sequence, which is filled in.
fn conv1d_padding(
    padding: &mut Option<u32>,
    kernel: u32,
    dilation: u32,
    causal: bool,
) -> Result<[u32; 2], Invalid> {
    let before = reach(kernel, dilation) - 1;
    if causal {
        if padding.is_some() {
            return Err(Invalid::new("padding", "a causal convolution has none of its own"));
        }
        return Ok([checked_padding(before)?, 0]);
    }
    let both = checked_padding(padding.map_or(before / 2, u64::from))?;
    *padding = Some(both);
    Ok([both, both])
}

/// The sequence of the places of a window.
fn slid_along(window: &Along, input: TensorShape) -> Result<TensorShape, Invalid> {
    let places = |length: u32| {
        window.places(length).ok_or_else(|| {
            Invalid::here(format!(
                "a window that reaches over {} (padding {}) does not fit a length of {length}",
                window.reach, window.padding
            ))
        })
    };
    match input {
        TensorShape::Tokens { n, l, c } => Ok(TensorShape::Tokens { n, l: places(l)?, c }),
        TensorShape::Map { n, c, h, w: 1 } => Ok(TensorShape::Map { n, c, h: places(h)?, w: 1 }),
        TensorShape::Map { .. } => Err(Invalid::here(format!(
            "takes tokens or a map of width 1, but its input is {input}: use a conv2d"
        ))),
    }
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
    Ok(TensorShape::Map { n, c, h: grown(h, scale)?, w: grown(w, scale)? })
}

fn grown(size: u32, scale: u32) -> Result<u32, Invalid> {
    size.checked_mul(scale).ok_or_else(|| Invalid::here(format!("{size} * {scale} is too large")))
}

/// A part of a value along one dimension.
fn sliced(
    input: TensorShape,
    along: Dimension,
    start: u32,
    length: u32,
    step: u32,
) -> Result<TensorShape, Invalid> {
    check_factor("step", step)?;
    let mut output = input;
    let size = match (&mut output, along) {
        (TensorShape::Map { c, .. } | TensorShape::Tokens { c, .. }, Dimension::Channels) => c,
        (TensorShape::Map { h, .. }, Dimension::Height) => h,
        (TensorShape::Map { w, .. }, Dimension::Width) => w,
        (TensorShape::Tokens { l, .. }, Dimension::Tokens) => l,
        _ => {
            return Err(Invalid::new("along", format!("the input has no such dimension: {input}")));
        }
    };
    let last = u64::from(start) + u64::from(length - 1) * u64::from(step);
    if last >= u64::from(*size) {
        return Err(Invalid::here(format!("reaches to element {last}, and there are {size}")));
    }
    *size = length;
    Ok(output)
}

/// The product of tensors of one shape, of factors for channels and of factors for positions.
fn scaled(inputs: &[TensorShape]) -> Result<TensorShape, Invalid> {
    let mut whole = inputs[0];
    for &input in inputs {
        // Factors for channels and factors for positions alone have a product of the size of both.
        if let (
            TensorShape::Map { c, h, w, .. },
            TensorShape::Map { c: channels, h: rows, w: columns, .. },
        ) = (&mut whole, input)
        {
            (*c, *h, *w) = ((*c).max(channels), (*h).max(rows), (*w).max(columns));
        }
    }
    let is_factor = |shape: TensorShape| match (shape, whole) {
        (
            TensorShape::Map { n, c, h, w },
            TensorShape::Map { n: all, c: channels, h: rows, w: columns },
        ) => n == all && ((c, h, w) == (channels, 1, 1) || (c, h, w) == (1, rows, columns)),
        _ => false,
    };
    match inputs.iter().find(|&&shape| shape != whole && !is_factor(shape)) {
        Some(other) => Err(Invalid::here(format!("its inputs differ: {whole} and {other}"))),
        None => whole.checked(),
    }
}

/// The common shape of all inputs.
fn alike(inputs: &[TensorShape]) -> Result<TensorShape, Invalid> {
    let first = inputs[0];
    match inputs.iter().find(|&&shape| shape != first) {
        Some(other) => Err(Invalid::here(format!("its inputs differ: {first} and {other}"))),
        None => Ok(first),
    }
}

/// Batch, channels, height and width of a map.
pub(super) fn map(input: TensorShape) -> Result<(u32, u32, u32, u32), Invalid> {
    match input {
        TensorShape::Map { n, c, h, w } => Ok((n, c, h, w)),
        TensorShape::Tokens { .. } => {
            Err(Invalid::here(format!("takes a map [n, c, h, w], but its input is {input}")))
        }
    }
}

/// Length of a sequence.
pub(super) fn tokens(input: TensorShape) -> Result<u32, Invalid> {
    match input {
        TensorShape::Tokens { l, .. } => Ok(l),
        TensorShape::Map { .. } => {
            Err(Invalid::here(format!("takes tokens, but its input is {input}")))
        }
    }
}

pub(super) fn divides_map(what: &str, part: u32, h: u32, w: u32) -> Result<(), Invalid> {
    if part > 0 && h.is_multiple_of(part) && w.is_multiple_of(part) {
        return Ok(());
    }
    Err(Invalid::here(format!("{what} {part} does not divide the map of {h}x{w}")))
}

pub(super) fn divides(what: &str, part: u32, channels: u32) -> Result<(), Invalid> {
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
