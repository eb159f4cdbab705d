//! Convolutions, linear layers and normalizations.

use std::sync::Arc;

use ops_catalog::{Padding, Pair, Primitive, Sides, TensorShape};

use super::channels::ordered;
use super::{Placed, Placer, Why, number};
use crate::flat::{Apply, Given, Norm, Source};
use crate::graph::{Operation, Value};
use crate::view::{Axis, Digits, whole};

/// A constant in its own dimensions.
pub(super) fn stored(value: &Value) -> Given {
    match &value.formula {
        Some(formula) => match formula.name() {
            Some(name) => Given::Stored(name.to_owned()),
            None => Given::Computed(Arc::clone(formula)),
        },
        None => Given::Unknown,
    }
}

/// A weight under the name of the lowering.
pub(super) fn named(name: &str, given: Given) -> (String, Given) {
    (name.to_owned(), given)
}

fn with_bias(weight: Given, bias: Option<Given>) -> Vec<(String, Given)> {
    let mut weights = vec![named("weight", weight)];
    weights.extend(bias.map(|bias| named("bias", bias)));
    weights
}

fn pair(sizes: &[u32]) -> Option<Pair<u32>> {
    match *sizes {
        [h, w] => Some(Pair { h, w }),
        _ => None,
    }
}

impl Placer<'_> {
    pub(super) fn conv(&mut self) -> Result<Placed, Why> {
        let Operation::Conv { stride, dilation, before, after, groups } = &self.node.operation
        else {
            unreachable!("the caller has a convolution")
        };
        let (input, weight) = (self.argument(0)?, self.weight(1)?);
        let bias = self.optional_weight(2)?.map(stored);
        let (out, kernel) = match weight.dims[..] {
            [out, _, length] => (number(out)?, vec![number(length)?]),
            [out, _, h, w] => (number(out)?, vec![number(h)?, number(w)?]),
            _ => return Err("only 1-D and 2-D convolutions are in the catalog".into()),
        };
        let groups = *groups;
        if kernel.len() == 1 {
            let parts = (stride[0], dilation[0], before[0], after[0]);
            let primitive = conv1d(out, kernel[0], groups, parts, bias.is_some())?;
            return self.along_sequence(&input, primitive, with_bias(stored(weight), bias));
        }
        let sides = Sides { top: before[0], bottom: after[0], left: before[1], right: after[1] };
        let primitive = Primitive::Conv2d {
            out,
            kernel: Pair { h: kernel[0], w: kernel[1] },
            stride: pair(stride).ok_or("its stride is not one of two dimensions")?,
            groups,
            dilation: pair(dilation).ok_or("its dilation is not one of two dimensions")?,
            padding: Some(Padding::Sides(sides)),
            bias: bias.is_some(),
        };
        let map = self.as_map(&input)?;
        let source = self.push(primitive, vec![map], with_bias(stored(weight), bias))?;
        self.as_wanted(source)
    }

    /// A 1-D convolution of `[n, c, length]`.
    fn along_sequence(
        &mut self,
        input: &Placed,
        primitive: Primitive<u32>,
        weights: Vec<(String, Given)>,
    ) -> Result<Placed, Why> {
        let shape = self.shape(input);
        let natural = Digits::natural(shape);
        let (length, order) = match shape {
            TensorShape::Tokens { .. } => (Axis::Tokens, natural.permuted(&[0, 2, 1])),
            TensorShape::Map { w: 1, .. } => (Axis::Rows, natural.reshaped(&self.value(0)?.dims)),
            TensorShape::Map { .. } => (Axis::Rows, None),
        };
        if order.as_ref() != Some(&input.digits) || input.rolled != [0, 0] {
            return Err("the input of a 1-D convolution is not [n, c, length]".into());
        }
        let source = self.push(primitive, vec![input.source], weights)?;
        let wanted = self.wanted();
        let &[n, c, l] = wanted else { return Err("its output is not [n, c, length]".into()) };
        let digits =
            Digits(vec![whole(Axis::Batch, n), whole(Axis::Channels, c), whole(length, l)]);
        Ok(Placed { source, digits, rolled: [0, 0] })
    }

    pub(super) fn conv_transpose(&mut self) -> Result<Placed, Why> {
        let Operation::ConvTranspose { stride, dilation, before, after, output_padding, groups } =
            &self.node.operation
        else {
            unreachable!("the caller has a transposed convolution")
        };
        let (input, weight) = (self.argument(0)?, self.weight(1)?);
        let bias = self.optional_weight(2)?.map(stored);
        let [_, per_group, h, w] = weight.dims[..] else {
            return Err("only 2-D transposed convolutions are in the catalog".into());
        };
        let two = "its parameters are not those of two dimensions";
        let sides = Sides { top: before[0], bottom: after[0], left: before[1], right: after[1] };
        let primitive = Primitive::ConvTranspose2d {
            out: number(per_group * u64::from(*groups))?,
            kernel: Pair { h: number(h)?, w: number(w)? },
            stride: pair(stride).ok_or(two)?,
            groups: *groups,
            dilation: pair(dilation).ok_or(two)?,
            padding: Some(Padding::Sides(sides)),
            output_padding: pair(output_padding).ok_or(two)?,
            bias: bias.is_some(),
        };
        let map = self.as_map(&input)?;
        let source = self.push(primitive, vec![map], with_bias(stored(weight), bias))?;
        self.as_wanted(source)
    }

    pub(super) fn linear(&mut self, transposed: bool) -> Result<Placed, Why> {
        let (input, weight) = (self.argument(0)?, self.weight(1)?);
        let bias = self.optional_weight(2)?.map(stored);
        let &[first, second] = weight.dims.as_slice() else {
            return Err("its weight is no matrix".into());
        };
        let (out, given) = match transposed {
            true => (first, stored(weight)),
            false => (second, Given::Transposed(Box::new(stored(weight)))),
        };
        let out = number(out)?;
        let (input, source) = self.channels_of(&input)?;
        let given = ordered(given, 1, input.digits.0.last());
        let shape = self.flat.shape(source);
        let (primitive, given) = match shape {
            TensorShape::Map { h, w, .. } if (h, w) != (1, 1) => {
                let dims = vec![u64::from(out), u64::from(shape.channels()), 1, 1];
                let primitive = Primitive::Conv2d {
                    out,
                    kernel: Pair::square(1),
                    stride: Pair::square(1),
                    groups: 1,
                    dilation: Pair::square(1),
                    padding: None,
                    bias: bias.is_some(),
                };
                (primitive, Given::Reshaped(Box::new(given), dims))
            }
            _ => (Primitive::Linear { out, bias: bias.is_some() }, given),
        };
        let source = self.push(primitive, vec![source], with_bias(given, bias))?;
        let mut digits = input.digits.clone();
        match digits.0.last_mut() {
            // The channels of the output are in their own order.
            Some(last) if last.len() > 1 => *last = whole(Axis::Channels, out.into()),
            _ => return self.in_order_of(&input, source),
        }
        Ok(Placed { source, digits, rolled: input.rolled })
    }

    pub(super) fn batch_norm(&mut self, epsilon: f64) -> Result<Placed, Why> {
        let input = self.argument(0)?;
        let shape = self.shape(&input);
        let along_channels =
            input.digits.0.get(1) == Some(&whole(Axis::Channels, shape.channels().into()));
        if !along_channels {
            return Err("a batch norm over another dimension than the channels".into());
        }
        let parts = [1, 2, 3, 4].map(|index| self.weight(index).map(stored));
        let [scale, shift, mean, variance] = parts;
        let norm = Norm { scale: scale?, shift: shift?, mean: mean?, variance: variance?, epsilon };
        if let Some(folded) = self.folded(&input, &norm) {
            return Ok(folded);
        }
        let weights = vec![
            named("weight", norm.scale),
            named("bias", norm.shift),
            named("running_mean", norm.mean),
            named("running_var", norm.variance),
        ];
        let map = self.as_map(&input)?;
        let source = self.push(Primitive::BatchNorm, vec![map], weights)?;
        self.in_order_of(&input, source)
    }

    /// The convolution before a batch norm with the norm folded into it, if nothing else reads the convolution.
    fn folded(&mut self, input: &Placed, norm: &Norm) -> Option<Placed> {
        let Source::Step(index) = input.source else { return None };
        if self.readers[self.node.inputs[0]] != 1 || self.read(input.source) {
            return None;
        }
        let step = &mut self.flat.steps[index];
        let Apply::Primitive(
            Primitive::Conv2d { bias, .. }
            | Primitive::Conv1d { bias, .. }
            | Primitive::Linear { bias, .. },
        ) = &mut step.apply
        else {
            return None;
        };
        *bias = true;
        let mut own: Vec<Given> =
            std::mem::take(&mut step.weights).into_iter().map(|(_, given)| given).collect();
        let old_bias = (own.len() > 1).then(|| own.pop()).flatten().map(Box::new);
        let weight = Box::new(own.pop().unwrap_or(Given::Unknown));
        let norm = Box::new(norm.clone());
        step.weights = with_bias(
            Given::FoldedWeight { weight, norm: norm.clone() },
            Some(Given::FoldedBias { bias: old_bias, norm }),
        );
        Some(input.clone())
    }

    /// Whether a step reads a value already.
    pub(super) fn read(&self, source: Source) -> bool {
        self.flat.steps.iter().rev().any(|step| step.inputs.contains(&source))
    }

    pub(super) fn layer_norm(&mut self, dimensions: usize) -> Result<Placed, Why> {
        is_over_channels(dimensions)?;
        let channels = self.value(0)?.dims.last().copied().unwrap_or(1);
        let part = |name: &str, value: Option<&Value>, without: f64| {
            named(name, value.map_or(Given::Constant(without, vec![channels]), stored))
        };
        let weights = vec![
            part("weight", self.optional_weight(1)?, 1.0),
            part("bias", self.optional_weight(2)?, 0.0),
        ];
        self.over_channels(Primitive::LayerNorm, weights)
    }

    pub(super) fn rms_norm(&mut self) -> Result<Placed, Why> {
        let weights = vec![named("weight", stored(self.weight(1)?))];
        self.over_channels(Primitive::RmsNorm, weights)
    }

    /// A primitive over the channels, which are the last dimension.
    pub(super) fn over_channels(
        &mut self,
        primitive: Primitive<u32>,
        weights: Vec<(String, Given)>,
    ) -> Result<Placed, Why> {
        let input = self.argument(0)?;
        let (input, source) = self.channels_of(&input)?;
        let order = |(name, given)| (name, ordered(given, 0, input.digits.0.last()));
        let weights = weights.into_iter().map(order).collect();
        let source = self.push(primitive, vec![source], weights)?;
        self.in_order_of(&input, source)
    }

    pub(super) fn group_norm(&mut self, groups: u32) -> Result<Placed, Why> {
        let input = self.argument(0)?;
        let channels = vec![u64::from(self.shape(&input).channels())];
        let part = |name: &str, value: Option<&Value>, without: f64| {
            let given = match value {
                Some(value) => Given::Reshaped(Box::new(stored(value)), channels.clone()),
                None => Given::Constant(without, channels.clone()),
            };
            named(name, given)
        };
        let weights = vec![
            part("weight", self.optional_weight(1)?, 1.0),
            part("bias", self.optional_weight(2)?, 0.0),
        ];
        let map = self.as_map(&input)?;
        let source = self.push(Primitive::GroupNorm { groups }, vec![map], weights)?;
        self.in_order_of(&input, source)
    }
}

impl Placer<'_> {
    pub(super) fn response_norm(&mut self) -> Result<Placed, Why> {
        let input = self.argument(0)?;
        let channels = vec![u64::from(self.shape(&input).channels())];
        let weights = [("weight", 1), ("bias", 2)].map(|(name, index)| {
            let given = Given::Reshaped(Box::new(stored(self.weight(index)?)), channels.clone());
            Ok::<_, Why>(named(name, given))
        });
        let [scale, shift] = weights;
        let weights = vec![scale?, shift?];
        if !matches!(self.shape(&input), TensorShape::Map { .. }) || input.rolled != [0, 0] {
            return Err("a response norm of something that is no map".into());
        }
        // It is the same for any order of the positions.
        let source = self.push(Primitive::ResponseNorm, vec![input.source], weights)?;
        self.in_order_of(&input, source)
    }
}

/// Whether a layer norm is over the last dimension alone.
pub(super) fn is_over_channels(dimensions: usize) -> Result<(), Why> {
    match dimensions {
        1 => Ok(()),
        _ => Err(format!(
            "a layer norm over {dimensions} dimensions; the catalog has one over the channels"
        )),
    }
}

/// A 1-D convolution. All its padding at the beginning makes it causal.
fn conv1d(
    out: u32,
    kernel: u32,
    groups: u32,
    (stride, dilation, before, after): (u32, u32, u32, u32),
    bias: bool,
) -> Result<Primitive<u32>, Why> {
    let reach = u64::from(dilation) * u64::from(kernel.saturating_sub(1));
    let causal = after == 0 && before > 0 && u64::from(before) == reach;
    if !causal && before != after {
        return Err(format!(
            "a padding of {before} before and {after} after a sequence; the catalog has equal ones, and causal \
             convolutions"
        ));
    }
    let padding = (!causal).then_some(before);
    Ok(Primitive::Conv1d { out, kernel, stride, groups, dilation, padding, causal, bias })
}
