//! Functions of elements, sums and products.

use ops_catalog::{Primitive, TensorShape};

use super::dense::{named, stored};
use super::{Placed, Placer, Why, told};
use crate::flat::{Apply, Given, Source};
use crate::graph::{Binary, Formula, Function, Kind, Operation, Value};
use crate::view::{Axis, Digit, Digits, whole};

/// What a constant is to a value, by the dimensions in which it varies.
#[derive(Debug, PartialEq)]
enum Extent {
    /// One number.
    Scalar,
    /// One for each channel.
    Channels,
    /// One for each position and channel.
    Positions,
}

impl Placer<'_> {
    pub(super) fn apply(&mut self, function: Function) -> Result<Placed, Why> {
        let primitive = primitive_of(function)?;
        let input = self.argument(0)?;
        let source = self.push(primitive, vec![input.source], vec![])?;
        Ok(Placed { source, ..input })
    }

    pub(super) fn prelu(&mut self) -> Result<Placed, Why> {
        let input = self.argument(0)?;
        let slope = self.weight(1)?;
        let count: u64 = slope.dims.iter().product();
        let channels = u64::from(self.shape(&input).channels());
        let shared = count == 1;
        if !shared && count != channels {
            return Err(format!("it has {count} slopes for {channels} channels"));
        }
        let given = Given::Reshaped(Box::new(stored(slope)), vec![count]);
        let weights = vec![named("slope", given)];
        let source = self.push(Primitive::Prelu { shared }, vec![input.source], weights)?;
        Ok(Placed { source, ..input })
    }

    pub(super) fn binary(&mut self, binary: Binary) -> Result<Placed, Why> {
        if let Some(primitive) = self.combination(binary)? {
            return self.combined(primitive);
        }
        let (left, right) = (self.value(0)?, self.value(1)?);
        match (left.constant, right.constant) {
            (false, _) => self.with_constant(binary, 0, right),
            (true, false) => self.with_constant(binary, 1, left),
            (true, true) => Err("both of its inputs are constants".into()),
        }
    }

    /// The primitive of two computed values; None if one of the node's inputs is a constant.
    pub(super) fn combination(&self, binary: Binary) -> Result<Option<Primitive<u32>>, Why> {
        let (left, right) = (self.value(0)?, self.value(1)?);
        let primitive = match binary {
            Binary::Add => Primitive::Add,
            Binary::Mul => Primitive::Mul,
            Binary::Sub => Primitive::Sub,
            Binary::Div | Binary::Pow | Binary::Max | Binary::Min => {
                if left.constant || right.constant {
                    return Ok(None);
                }
                return Err(format!("{binary:?} of two computed values is not in the catalog"));
            }
        };
        Ok((!left.constant && !right.constant).then_some(primitive))
    }

    /// Two computed values.
    fn combined(&mut self, primitive: Primitive<u32>) -> Result<Placed, Why> {
        let (left, right) = (self.argument(0)?, self.argument(1)?);
        let same = self.shape(&left) == self.shape(&right);
        if same && left.digits == right.digits && left.rolled == right.rolled {
            let source = self.push(primitive, vec![left.source, right.source], vec![])?;
            return Ok(Placed { source, ..left });
        }
        for (one, other, first) in [(&left, &right, true), (&right, &left, false)] {
            if let Some(mapped) = self.mapped_like(one, other)? {
                let sources = if first { [mapped, other.source] } else { [other.source, mapped] };
                let source = self.push(primitive, sources.to_vec(), vec![])?;
                return Ok(Placed { source, ..other.clone() });
            }
        }
        // As maps, where a factor for each channel or position may be smaller; or as sequences.
        let maps = match (self.as_map(&left), self.as_map(&right)) {
            (Ok(left), Ok(right)) => Some([left, right]),
            _ => match (self.as_tokens(&left), self.as_tokens(&right)) {
                (Ok(left), Ok(right)) => Some([left, right]),
                _ => None,
            },
        };
        let Some(sources) = maps else {
            return Err(format!(
                "its inputs lie in different orders: {} and {}",
                told(&left.digits),
                told(&right.digits)
            ));
        };
        let source = self.push(primitive, sources.to_vec(), vec![])?;
        self.as_wanted(source)
    }

    /// A sequence as a map, if it is read in the same order as a map of its size.
    fn mapped_like(&mut self, tokens: &Placed, map: &Placed) -> Result<Option<Source>, Why> {
        let (TensorShape::Tokens { .. }, TensorShape::Map { w, .. }) =
            (self.shape(tokens), self.shape(map))
        else {
            return Ok(None);
        };
        let w = u64::from(w);
        let of_map = |digit: &Digit| match (digit.axis, digit.stride) {
            (Axis::Tokens, stride) if stride.is_multiple_of(w) => {
                Digit { axis: Axis::Rows, stride: stride / w, ..*digit }
            }
            (Axis::Tokens, _) => Digit { axis: Axis::Columns, ..*digit },
            _ => *digit,
        };
        let digits = tokens.digits.0.iter().map(|digits| digits.iter().map(of_map).collect());
        if Digits(digits.collect()) != map.digits || map.rolled != [0, 0] {
            return Ok(None);
        }
        self.push(Primitive::ToMap, vec![tokens.source, map.source], vec![]).map(Some)
    }

    /// A computed value (input `index`) and a constant.
    fn with_constant(
        &mut self,
        binary: Binary,
        index: usize,
        constant: &Value,
    ) -> Result<Placed, Why> {
        let input = self.argument(index)?;
        let extent = self.extent(&input, constant)?;
        let first = index == 0;
        match (binary, extent) {
            (Binary::Add, Extent::Channels) => self.with_bias(&input, index, constant),
            (Binary::Sub, Extent::Channels) if first => {
                self.shifted(&input, computed(Function::Negate, constant))
            }
            (Binary::Add, Extent::Positions) => self.with_positions(&input, constant),
            (Binary::Mul, Extent::Channels) => self.scaled(&input, stored(constant)),
            (Binary::Div, Extent::Channels) if first => {
                self.scaled(&input, computed(Function::Reciprocal, constant))
            }
            (Binary::Mul | Binary::Div | Binary::Add | Binary::Sub, Extent::Scalar)
                if first || binary != Binary::Div =>
            {
                self.with_number(&input, binary, first, constant)
            }
            (_, Extent::Scalar) => Err(format!(
                "{binary:?} of a value and the number `{}` is not in the catalog",
                constant.name
            )),
            (_, extent) => Err(format!(
                "{binary:?} of a value and a constant for each {} is not in the catalog",
                if extent == Extent::Channels { "channel" } else { "position" }
            )),
        }
    }

    /// The dimensions in which a constant varies, as those of a value.
    fn extent(&self, input: &Placed, constant: &Value) -> Result<Extent, Why> {
        let skipped = input.digits.0.len().checked_sub(constant.dims.len());
        let Some(skipped) = skipped else {
            return match constant.dims.iter().all(|&size| size == 1) {
                true => Ok(Extent::Scalar),
                false => Err("the constant has more dimensions than the value".into()),
            };
        };
        let varies = constant.dims.iter().zip(&input.digits.0[skipped..]);
        let digits: Vec<Digit> = varies
            .filter(|(size, _)| **size != 1)
            .flat_map(|(_, digits)| digits.iter().copied())
            .collect();
        let sizes: u64 = digits.iter().map(|digit| digit.size).product();
        let shape = self.shape(input);
        let channels = u64::from(shape.channels());
        let positions = shape.positions() * channels;
        let count: u64 = constant.dims.iter().product();
        if sizes != count {
            return Err(format!("the constant has the shape {:?}", constant.dims));
        }
        match count {
            1 => Ok(Extent::Scalar),
            _ if digits == whole(Axis::Channels, channels) => Ok(Extent::Channels),
            _ if count == positions && digits.iter().all(|digit| digit.axis != Axis::Batch) => {
                Ok(Extent::Positions)
            }
            _ => Err(format!(
                "a constant of the shape {:?}, which is neither one number for each channel nor one for each element",
                constant.dims
            )),
        }
    }

    /// A bias of a layer before it that has none.
    fn with_bias(&mut self, input: &Placed, index: usize, constant: &Value) -> Result<Placed, Why> {
        let alone = self.readers[self.node.inputs[index]] == 1 && !self.read(input.source);
        if let Source::Step(step) = input.source
            && alone
        {
            let step = &mut self.flat.steps[step];
            if let Apply::Primitive(
                Primitive::Conv2d { bias, .. }
                | Primitive::Conv1d { bias, .. }
                | Primitive::ConvTranspose2d { bias, .. }
                | Primitive::Linear { bias, .. },
            ) = &mut step.apply
                && !*bias
            {
                *bias = true;
                let count = constant.dims.iter().product();
                let given = Given::Reshaped(Box::new(stored(constant)), vec![count]);
                step.weights.push(named("bias", given));
                return Ok(input.clone());
            }
        }
        self.shifted(input, stored(constant))
    }

    /// A number added to each channel.
    fn shifted(&mut self, input: &Placed, shift: Given) -> Result<Placed, Why> {
        let channels = u64::from(self.shape(input).channels());
        let weights = vec![named("shift", Given::Reshaped(Box::new(shift), vec![channels]))];
        let source = self.push(Primitive::LayerShift, vec![input.source], weights)?;
        Ok(Placed { source, ..input.clone() })
    }

    /// Position embeddings.
    fn with_positions(&mut self, input: &Placed, constant: &Value) -> Result<Placed, Why> {
        let (placed, source) = match self.as_map(input) {
            Ok(source) => (input.clone(), source),
            Err(_) => {
                let source = self.as_tokens(input)?;
                (self.natural(source), source)
            }
        };
        let dims = match self.flat.shape(source) {
            TensorShape::Map { c, h, w, .. } => [1, c, h, w].map(u64::from).to_vec(),
            TensorShape::Tokens { l, c, .. } => [1, l, c].map(u64::from).to_vec(),
        };
        let given = Given::Reshaped(Box::new(stored(constant)), dims);
        let weights = vec![named("positions", given)];
        let source = self.push(Primitive::PositionEmbedding, vec![source], weights)?;
        Ok(Placed { source, ..placed })
    }

    /// A factor for each channel.
    fn scaled(&mut self, input: &Placed, factor: Given) -> Result<Placed, Why> {
        let channels = u64::from(self.shape(input).channels());
        let given = Given::Reshaped(Box::new(factor), vec![channels]);
        let weights = vec![named("factor", given)];
        let source = self.push(Primitive::LayerScale, vec![input.source], weights)?;
        Ok(Placed { source, ..input.clone() })
    }

    /// A value and one number. `first` says whether the value comes first.
    fn with_number(
        &mut self,
        input: &Placed,
        binary: Binary,
        first: bool,
        constant: &Value,
    ) -> Result<Placed, Why> {
        let Some(&[number]) = constant.numbers.as_deref() else {
            return Err(format!("the number `{}` is not in the file", constant.name));
        };
        let (factor, shift) = match (binary, first) {
            (Binary::Div, _) => (1.0 / number, 0.0),
            (Binary::Mul, _) => (number, 0.0),
            (Binary::Sub, true) => (1.0, -number),
            (Binary::Sub, false) => (-1.0, number),
            _ => (1.0, number),
        };
        let mut source = input.source;
        if factor != 1.0 {
            let weights = vec![named("factor", Given::Constant(factor, vec![1]))];
            source = self.push(Primitive::Scale, vec![source], weights)?;
        }
        if shift != 0.0 {
            let weights = vec![named("shift", Given::Constant(shift, vec![1]))];
            source = self.push(Primitive::Shift, vec![source], weights)?;
        }
        Ok(Placed { source, ..input.clone() })
    }

    pub(super) fn softmax(&mut self, axis: usize) -> Result<Placed, Why> {
        let input = self.argument(0)?;
        let channels = u64::from(self.shape(&input).channels());
        if input.digits.0.get(axis) != Some(&whole(Axis::Channels, channels)) {
            return Err(format!(
                "a softmax along dimension {axis} of a tensor in the order {}; the catalog has one over the channels, \
                 and attention",
                told(&input.digits)
            ));
        }
        let source = self.push(Primitive::Softmax, vec![input.source], vec![])?;
        Ok(Placed { source, ..input })
    }

    pub(super) fn embedding(&mut self) -> Result<Placed, Why> {
        let table = self.weight(0)?;
        let numbers = self.argument(1)?;
        let &[rows, out] = table.dims.as_slice() else {
            return Err("its table is no matrix".into());
        };
        let primitive =
            Primitive::Embedding { rows: super::number(rows)?, out: super::number(out)? };
        let weights = vec![named("weight", stored(table))];
        let source = self.push(primitive, vec![numbers.source], weights)?;
        Ok(self.natural(source))
    }

    pub(super) fn reduce(
        &mut self,
        reduction: crate::graph::Reduction,
        axes: &[usize],
    ) -> Result<Placed, Why> {
        let input = self.argument(0)?;
        let mut reduced: Vec<Digit> = axes
            .iter()
            .flat_map(|&axis| input.digits.0.get(axis).into_iter().flatten().copied())
            .collect();
        if reduced.is_empty() {
            return Ok(Placed { digits: self.reshaped_digits(&input)?, ..input });
        }
        let natural = Digits::natural(self.shape(&input));
        let is_position =
            |digit: &&Digit| matches!(digit.axis, Axis::Rows | Axis::Columns | Axis::Tokens);
        let mut positions: Vec<Digit> =
            natural.0.iter().flatten().filter(is_position).copied().collect();
        let order = |digit: &Digit| (digit.axis as u8, digit.stride);
        reduced.sort_by_key(order);
        positions.sort_by_key(order);
        if reduction != crate::graph::Reduction::Mean || reduced != positions {
            return Err(format!(
                "{reduction:?} over the dimensions {axes:?} of a tensor in the order {}; the catalog has the mean over \
                 all positions",
                told(&input.digits)
            ));
        }
        let source = self.push(Primitive::GlobalAvgPool, vec![input.source], vec![])?;
        self.as_wanted(source)
    }
}

/// A function of a constant.
fn computed(function: Function, constant: &Value) -> Given {
    let formula = constant.formula.clone().and_then(|formula| {
        let operation = Operation::Apply(function);
        Formula::applied(&operation, Kind::Float, vec![formula], &constant.dims)
    });
    formula.map_or(Given::Unknown, Given::Computed)
}

/// The primitive of an activation.
pub(super) fn primitive_of(function: Function) -> Result<Primitive<u32>, Why> {
    Ok(match function {
        Function::Relu => Primitive::Relu,
        Function::Clip { min: 0.0, max: 6.0 } => Primitive::Relu6,
        Function::Hardswish => Primitive::Hardswish,
        Function::Hardsigmoid => Primitive::Hardsigmoid,
        Function::Silu => Primitive::Silu,
        Function::Gelu => Primitive::Gelu,
        Function::GeluTanh => Primitive::GeluTanh,
        Function::Sigmoid => Primitive::Sigmoid,
        Function::Tanh => Primitive::Tanh,
        Function::Mish => Primitive::Mish,
        Function::Elu { alpha: 1.0 } => Primitive::Elu,
        Function::LeakyRelu { slope } if (slope - 0.01).abs() < 1e-6 => Primitive::LeakyRelu,
        other => return Err(format!("the function {other:?} is not in the catalog")),
    })
}
