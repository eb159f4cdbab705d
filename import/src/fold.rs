//! Evaluation of operations on small constants: the arithmetic on shapes that exporters leave in a graph.
//!
//! All numbers are `f64`. Integers are exact up to 2^53; the limits of 64 bits, which mean "to the end" in slices, stay
//! far larger than any dimension.

mod products;

pub(crate) use self::products::{product, work};
use crate::elements::Element;
use crate::error::{Step, malformed};
use crate::graph::{Binary, Function, Kind, Operation, Reduction};
use crate::shapes;

/// Elements of the largest stored constant whose numbers are kept.
pub(crate) const MOST_STORED: u64 = 4096;

/// Bytes of the largest stored constant whose numbers are kept if each is one byte: a stored mask.
pub(crate) const MOST_BYTES: u64 = MOST_NUMBERS;

/// Elements of the largest constant whose numbers are computed: the mask of an attention over 256 tokens.
pub(crate) const MOST_NUMBERS: u64 = 1 << 16;

/// A constant whose numbers are known.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Operand<'a> {
    pub(crate) dims: &'a [u64],
    pub(crate) numbers: &'a [f64],
}

/// What is only computed on constants, so it has no place in a graph.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum OnConstants {
    /// `left == right`, and so on: a boolean.
    Compare(Comparison),
    /// Both.
    And,
    /// One or both.
    Or,
    /// One and not both.
    Xor,
    /// The opposite.
    Not,
    /// The second input where the first is true, else the third.
    Where,
    /// The largest integer that is not larger.
    Floor,
    /// The smallest integer that is not smaller.
    Ceil,
    /// The nearest integer, the even one of two.
    Round,
    /// -1, 0 or 1.
    Sign,
    /// Natural logarithm.
    Log,
    /// The largest integer that is not larger than `left / right`.
    FloorDiv,
    /// Remainder with the sign of the right side.
    Mod,
    /// Remainder with the sign of the left side.
    Remainder,
    /// Elements of another kind.
    Cast(Kind),
    /// Slices of the first input along an axis, at the positions of the second.
    Gather(usize),
    /// A matrix with zeros below a diagonal, or above it.
    Triangle {
        /// Whether the upper part stays.
        upper: bool,
        /// How far the diagonal is above the main one.
        diagonal: i64,
    },
    /// Its input, repeated along each dimension.
    Tile(Vec<u64>),
    /// Sums of all elements up to each along an axis.
    CumulativeSum(usize),
    /// An element of the first input for each position in the second one, which stands for its place along an axis.
    Along(usize),
    /// Single elements of the first input. The others are their positions, one input for each dimension.
    Elements,
}

/// A comparison of two numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    fn holds(self, left: f64, right: f64) -> bool {
        match self {
            Comparison::Equal => left == right,
            Comparison::Unequal => left != right,
            Comparison::Less => left < right,
            Comparison::LessOrEqual => left <= right,
            Comparison::Greater => left > right,
            Comparison::GreaterOrEqual => left >= right,
        }
    }
}

/// The offsets of elements in memory, in the order of the elements of `dims`. Callers bound the number of elements.
fn offsets(dims: &[u64], strides: &[u64], start: u64) -> Vec<usize> {
    // Of an empty tensor, the other dimensions can have any size.
    if dims.contains(&0) {
        return Vec::new();
    }
    let mut offsets = vec![start];
    for (&dim, &stride) in dims.iter().zip(strides) {
        offsets = offsets.iter().flat_map(|at| (0..dim).map(move |i| at + i * stride)).collect();
    }
    // The largest offset is below the number of elements of a small tensor.
    offsets.into_iter().map(|at| usize::try_from(at).unwrap_or(usize::MAX)).collect()
}

/// Distances in memory between neighbours along each dimension.
fn strides(dims: &[u64]) -> Vec<u64> {
    let mut strides = vec![1; dims.len()];
    for i in (1..dims.len()).rev() {
        strides[i - 1] = strides[i] * dims[i];
    }
    strides
}

fn picked(numbers: &[f64], offsets: &[usize]) -> Option<Vec<f64>> {
    offsets.iter().map(|&at| numbers.get(at).copied()).collect()
}

/// The numbers of an operand, repeated to the dimensions of a result.
fn spread(operand: Operand<'_>, dims: &[u64]) -> Option<Vec<f64>> {
    let missing = dims.len().checked_sub(operand.dims.len())?;
    let own = strides(operand.dims);
    let strides: Vec<u64> = (0..dims.len())
        .map(|i| match i.checked_sub(missing) {
            Some(own_axis) if operand.dims[own_axis] != 1 => own[own_axis],
            _ => 0,
        })
        .collect();
    picked(operand.numbers, &offsets(dims, &strides, 0))
}

fn combined(
    operands: &[Operand<'_>],
    dims: &[u64],
    rule: impl Fn(f64, f64) -> Option<f64>,
) -> Option<Vec<f64>> {
    let [left, right] = *operands else { return None };
    let (left, right) = (spread(left, dims)?, spread(right, dims)?);
    left.into_iter().zip(right).map(|(l, r)| rule(l, r)).collect()
}

/// The numbers of a result, or None if they are not computed here. All operands and `dims` have at most
/// [`MOST_NUMBERS`] elements. `kind` is that of the result.
pub(crate) fn evaluate(
    operation: &Operation,
    operands: &[Operand<'_>],
    dims: &[u64],
    kind: Kind,
) -> Option<Vec<f64>> {
    let first = *operands.first()?;
    match operation {
        Operation::Reshape => Some(first.numbers.to_vec()),
        Operation::Permute { order } => {
            let own = strides(first.dims);
            let strides: Vec<u64> = order.iter().map(|&i| own[i]).collect();
            picked(first.numbers, &offsets(dims, &strides, 0))
        }
        Operation::Expand => spread(first, dims),
        Operation::Slice { axis, start, step } => {
            let mut strides = strides(first.dims);
            let begin = start * strides[*axis];
            strides[*axis] *= step;
            picked(first.numbers, &offsets(dims, &strides, begin))
        }
        Operation::Concat { axis } => Some(joined(operands, *axis)),
        Operation::Pad { before, .. } => {
            let strides = strides(dims);
            let begin = before.iter().zip(&strides).map(|(&b, s)| u64::from(b) * s).sum();
            let mut padded = vec![0.0; usize::try_from(shapes::count(dims)?).ok()?];
            for (&number, at) in first.numbers.iter().zip(offsets(first.dims, &strides, begin)) {
                *padded.get_mut(at)? = number;
            }
            Some(padded)
        }
        Operation::Binary(function) => {
            combined(operands, dims, |l, r| binary(*function, l, r, kind))
        }
        Operation::Apply(function) => {
            first.numbers.iter().map(|&x| applied(*function, x)).collect()
        }
        Operation::Reduce { reduction, axes, .. } => reduced(first, *reduction, axes),
        Operation::Embedding => gathered(first, operands.get(1)?.numbers, 0),
        _ => None,
    }
}

fn joined(operands: &[Operand<'_>], axis: usize) -> Vec<f64> {
    let rows: u64 = operands[0].dims[..axis].iter().product();
    let mut numbers = Vec::new();
    for row in 0..usize::try_from(rows).unwrap_or(0) {
        for operand in operands {
            let length = operand.dims[axis..].iter().product::<u64>();
            let length = usize::try_from(length).unwrap_or(0);
            numbers.extend_from_slice(&operand.numbers[row * length..(row + 1) * length]);
        }
    }
    numbers
}

fn binary(function: Binary, left: f64, right: f64, kind: Kind) -> Option<f64> {
    let whole = kind != Kind::Float;
    Some(match function {
        Binary::Add => left + right,
        Binary::Sub => left - right,
        Binary::Mul => left * right,
        Binary::Div if whole && right == 0.0 => return None,
        Binary::Div if whole => (left / right).trunc(),
        Binary::Div => left / right,
        Binary::Pow => left.powf(right),
        Binary::Max => left.max(right),
        Binary::Min => left.min(right),
    })
}

fn applied(function: Function, x: f64) -> Option<f64> {
    Some(match function {
        Function::Relu => x.max(0.0),
        Function::Clip { min, max } => x.max(min).min(max),
        Function::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Function::Tanh => x.tanh(),
        Function::Exp => x.exp(),
        Function::Sqrt => x.sqrt(),
        Function::Rsqrt => 1.0 / x.sqrt(),
        Function::Reciprocal => 1.0 / x,
        Function::Negate => -x,
        Function::Abs => x.abs(),
        Function::Sin => x.sin(),
        Function::Cos => x.cos(),
        _ => return None,
    })
}

fn reduced(operand: Operand<'_>, reduction: Reduction, axes: &[usize]) -> Option<Vec<f64>> {
    let own = strides(operand.dims);
    let part = |inside: bool| -> (Vec<u64>, Vec<u64>) {
        let chosen = (0..own.len()).filter(|i| axes.contains(i) == inside);
        chosen.map(|i| (operand.dims[i], own[i])).unzip()
    };
    let ((inner, inner_strides), (outer, outer_strides)) = (part(true), part(false));
    let inside = offsets(&inner, &inner_strides, 0);
    if inside.is_empty() {
        return None;
    }
    offsets(&outer, &outer_strides, 0)
        .into_iter()
        .map(|start| {
            let group = inside.iter().map(|at| operand.numbers.get(start + at).copied());
            let group: Vec<f64> = group.collect::<Option<_>>()?;
            let sum: f64 = group.iter().sum();
            Some(match reduction {
                Reduction::Sum => sum,
                // A tensor of at most 4096 elements is counted exactly.
                Reduction::Mean => sum / inside.len() as f64,
                Reduction::Max => group.into_iter().fold(f64::NEG_INFINITY, f64::max),
            })
        })
        .collect()
}

/// The dimensions and the kind of what is computed on constants.
pub(crate) fn output(operation: &OnConstants, inputs: &[(&[u64], Kind)]) -> Step<(Vec<u64>, Kind)> {
    let Some(&(first, kind)) = inputs.first() else { return malformed("it reads nothing") };
    let needed = match operation {
        OnConstants::Elements => first.len() + 1,
        OnConstants::Where => 3,
        OnConstants::Compare(_)
        | OnConstants::And
        | OnConstants::Or
        | OnConstants::Xor
        | OnConstants::FloorDiv
        | OnConstants::Mod
        | OnConstants::Remainder
        | OnConstants::Along(_)
        | OnConstants::Gather(_) => 2,
        _ => 1,
    };
    if inputs.len() != needed {
        return malformed(format!("it reads {} values instead of {needed}", inputs.len()));
    }
    let together = || {
        let mut dims = first.to_vec();
        for (other, _) in &inputs[1..] {
            match shapes::broadcast(&dims, other) {
                Some(all) => dims = all,
                None => {
                    return malformed(format!(
                        "{dims:?} and {other:?} cannot be combined element by element"
                    ));
                }
            }
        }
        Ok(dims)
    };
    Ok(match operation {
        OnConstants::Compare(_) | OnConstants::And | OnConstants::Or | OnConstants::Xor => {
            (together()?, Kind::Boolean)
        }
        OnConstants::Not => (first.to_vec(), Kind::Boolean),
        OnConstants::Where => (together()?, inputs[1].1),
        OnConstants::FloorDiv | OnConstants::Mod | OnConstants::Remainder => (together()?, kind),
        OnConstants::Cast(kind) => (first.to_vec(), *kind),
        OnConstants::Gather(axis) => {
            if *axis >= first.len() {
                return malformed(format!("{first:?} has no dimension {axis}"));
            }
            let dims = [&first[..*axis], inputs[1].0, &first[axis + 1..]].concat();
            (dims, kind)
        }
        OnConstants::Along(axis) => {
            let positions = inputs[1].0;
            let fits = positions.len() == first.len()
                && (0..first.len()).all(|i| i == *axis || positions[i] <= first[i]);
            if !fits || *axis >= first.len() {
                return malformed(format!(
                    "positions of {positions:?} along dimension {axis} of {first:?}"
                ));
            }
            (positions.to_vec(), kind)
        }
        OnConstants::Triangle { .. } if first.len() < 2 => {
            return malformed(format!("{first:?} is no matrix"));
        }
        OnConstants::Tile(repeats) => {
            if repeats.len() != first.len() {
                return malformed(format!("{first:?} is not repeated {repeats:?} times"));
            }
            let dims = first.iter().zip(repeats).map(|(d, n)| d.saturating_mul(*n));
            (dims.collect(), kind)
        }
        OnConstants::CumulativeSum(axis) if *axis >= first.len() => {
            return malformed(format!("{first:?} has no dimension {axis}"));
        }
        OnConstants::Elements => {
            let mut dims = vec![];
            for (positions, _) in &inputs[1..] {
                dims = match shapes::broadcast(&dims, positions) {
                    Some(all) => all,
                    None => return malformed("its positions do not fit together"),
                };
            }
            (dims, kind)
        }
        _ => (first.to_vec(), kind),
    })
}

/// As [`evaluate`], for what is computed on constants. `dims` are those of [`output`].
pub(crate) fn evaluate_constant(
    operation: &OnConstants,
    operands: &[Operand<'_>],
    dims: &[u64],
) -> Option<Vec<f64>> {
    let first = *operands.first()?;
    let truth = |holds: bool| Some(f64::from(u8::from(holds)));
    let each = |rule: fn(f64) -> f64| Some(first.numbers.iter().map(|&x| rule(x)).collect());
    match operation {
        OnConstants::Compare(rule) => combined(operands, dims, |l, r| truth(rule.holds(l, r))),
        OnConstants::And => combined(operands, dims, |l, r| truth(l != 0.0 && r != 0.0)),
        OnConstants::Or => combined(operands, dims, |l, r| truth(l != 0.0 || r != 0.0)),
        OnConstants::Xor => combined(operands, dims, |l, r| truth((l != 0.0) != (r != 0.0))),
        OnConstants::Not => each(|x| f64::from(u8::from(x == 0.0))),
        OnConstants::Where => {
            let [condition, yes, no] = *operands else { return None };
            let (yes, no) = (spread(yes, dims)?, spread(no, dims)?);
            let condition = spread(condition, dims)?.into_iter();
            Some(
                condition
                    .zip(yes.into_iter().zip(no))
                    .map(|(c, (y, n))| if c != 0.0 { y } else { n })
                    .collect(),
            )
        }
        OnConstants::Floor => each(f64::floor),
        OnConstants::Ceil => each(f64::ceil),
        OnConstants::Round => each(f64::round_ties_even),
        OnConstants::Sign => each(|x| if x == 0.0 { 0.0 } else { x.signum() }),
        OnConstants::Log => each(f64::ln),
        OnConstants::FloorDiv => {
            combined(operands, dims, |l, r| (r != 0.0).then(|| (l / r).floor()))
        }
        OnConstants::Mod => {
            combined(operands, dims, |l, r| (r != 0.0).then(|| l - (l / r).floor() * r))
        }
        OnConstants::Remainder => combined(operands, dims, |l, r| (r != 0.0).then(|| l % r)),
        OnConstants::Cast(Kind::Float) => Some(first.numbers.to_vec()),
        OnConstants::Cast(Kind::Integer) => each(f64::trunc),
        OnConstants::Cast(Kind::Boolean) => each(|x| f64::from(u8::from(x != 0.0))),
        OnConstants::Gather(axis) => gathered(first, operands.get(1)?.numbers, *axis),
        OnConstants::Along(axis) => along(first, operands.get(1)?.numbers, *axis, dims),
        OnConstants::Triangle { upper, diagonal } => triangle(first, *upper, *diagonal),
        OnConstants::CumulativeSum(axis) => {
            let step = usize::try_from(strides(first.dims)[*axis]).ok()?;
            let length = usize::try_from(first.dims[*axis]).ok()?;
            let mut sums = first.numbers.to_vec();
            for at in step..sums.len() {
                if at / step % length != 0 {
                    sums[at] += sums[at - step];
                }
            }
            Some(sums)
        }
        OnConstants::Elements => elements(first, &operands[1..], dims),
        OnConstants::Tile(_) => {
            let own = strides(first.dims);
            let mut tiled = vec![0_usize];
            for (i, &dim) in dims.iter().enumerate() {
                let step =
                    |k: u64| usize::try_from(k % first.dims[i] * own[i]).unwrap_or(usize::MAX);
                tiled = tiled.iter().flat_map(|at| (0..dim).map(move |k| at + step(k))).collect();
            }
            picked(first.numbers, &tiled)
        }
    }
}

fn elements(table: Operand<'_>, positions: &[Operand<'_>], dims: &[u64]) -> Option<Vec<f64>> {
    let count = usize::try_from(shapes::count(dims)?).ok()?;
    let mut at = vec![0_usize; count];
    for ((operand, &length), stride) in positions.iter().zip(table.dims).zip(strides(table.dims)) {
        for (at, position) in at.iter_mut().zip(spread(*operand, dims)?) {
            let position = if position < 0.0 { position + length as f64 } else { position };
            if !(0.0..length as f64).contains(&position) {
                return None;
            }
            *at += usize::try_from(position as u64 * stride).ok()?;
        }
    }
    picked(table.numbers, &at)
}

fn gathered(table: Operand<'_>, positions: &[f64], axis: usize) -> Option<Vec<f64>> {
    let length = table.dims[axis];
    let rows: u64 = table.dims[..axis].iter().product();
    let width = usize::try_from(table.dims[axis + 1..].iter().product::<u64>()).ok()?;
    let mut numbers = Vec::new();
    for row in 0..rows {
        for &position in positions {
            let position = if position < 0.0 { position + length as f64 } else { position };
            if !(0.0..length as f64).contains(&position) {
                return None;
            }
            let start = usize::try_from(row * length + position as u64).ok()? * width;
            numbers.extend_from_slice(table.numbers.get(start..start + width)?);
        }
    }
    Some(numbers)
}

fn along(table: Operand<'_>, positions: &[f64], axis: usize, dims: &[u64]) -> Option<Vec<f64>> {
    let mut own = strides(table.dims);
    let stride = std::mem::take(&mut own[axis]);
    let length = table.dims[axis];
    let places = positions.iter().zip(offsets(dims, &own, 0));
    let numbers = places.map(|(&position, at)| {
        let position = if position < 0.0 { position + length as f64 } else { position };
        let inside = (0.0..length as f64).contains(&position);
        let step = usize::try_from(position as u64 * stride).ok().filter(|_| inside)?;
        table.numbers.get(at + step).copied()
    });
    numbers.collect()
}

fn triangle(matrix: Operand<'_>, upper: bool, diagonal: i64) -> Option<Vec<f64>> {
    let [.., rows, columns] = *matrix.dims else { return None };
    let (rows, columns) = (i128::from(rows), i128::from(columns));
    let kept = matrix.numbers.iter().enumerate().map(|(at, &number)| {
        let at = at as i128;
        let (row, column) = (at / columns % rows, at % columns);
        let offset = column - row;
        let keeps = if upper { offset >= diagonal.into() } else { offset <= diagonal.into() };
        if keeps { number } else { 0.0 }
    });
    Some(kept.collect())
}

/// The number of elements of a stored tensor, if it is small enough for its numbers to be kept.
pub(crate) fn kept(element: Element, dims: &[u64]) -> Option<usize> {
    let most = if element.size() == 1 { MOST_BYTES } else { MOST_STORED };
    let count = shapes::count(dims).filter(|&count| count <= most)?;
    usize::try_from(count).ok()
}

#[cfg(test)]
mod tests;
