//! Products of constants: tables of positions that a model computes with small layers.

use super::{Operand, spread};
use crate::graph::Operation;

/// How many numbers are computed with for a result: multiply-accumulates, or elements. `inputs` are dimensions.
pub(crate) fn work(operation: &Operation, inputs: &[&[u64]], dims: &[u64]) -> u64 {
    let terms = match operation {
        Operation::MatMul | Operation::Linear { .. } => inputs.first().and_then(|dims| dims.last()),
        Operation::Conv { .. } => inputs.first().and_then(|dims| dims.get(1)),
        Operation::Reduce { .. } => return elements(inputs.first().copied().unwrap_or_default()),
        _ => None,
    };
    elements(dims).saturating_mul(terms.copied().unwrap_or(1))
}

fn elements(dims: &[u64]) -> u64 {
    dims.iter().fold(1, |count, &size| u64::saturating_mul(count, size))
}

/// The numbers of a product, or None if it is not computed here. `dims` are those of the result. Products take long,
/// so they are not computed while a graph is read.
pub(crate) fn product(
    operation: &Operation,
    operands: &[Operand<'_>],
    dims: &[u64],
) -> Option<Vec<f64>> {
    let (left, right) = (*operands.first()?, *operands.get(1)?);
    let (numbers, bias_axis) = match operation {
        Operation::MatMul => return batched(left, right, dims),
        Operation::Linear { transposed } => {
            let &[.., width] = left.dims else { return None };
            let [rows, columns] = [left.numbers.len() as u64 / width.max(1), *dims.last()?];
            let strides = if *transposed { [1, width] } else { [columns, 1] };
            let numbers =
                matrix([rows, width, columns], left.numbers, [width, 1], right.numbers, strides)?;
            (numbers, dims.len() - 1)
        }
        Operation::Conv { .. } if is_pointwise(operation, right.dims) => {
            let &[n, width, h, w] = left.dims else { return None };
            let [columns, places] = [*dims.get(1)?, h * w];
            let mut numbers = vec![];
            for image in 0..n {
                let start = usize::try_from(image * width * places).ok()?;
                let image = left.numbers.get(start..)?;
                let sizes = [columns, width, places];
                numbers.extend(matrix(sizes, right.numbers, [width, 1], image, [places, 1])?);
            }
            (numbers, 1)
        }
        _ => return None,
    };
    match operands.get(2) {
        Some(bias) => biased(numbers, bias.numbers, dims, bias_axis),
        None => Some(numbers),
    }
}

/// Whether a convolution of a map works on each position alone.
fn is_pointwise(operation: &Operation, weight: &[u64]) -> bool {
    let Operation::Conv { stride, before, after, groups, .. } = operation else { return false };
    weight.len() == 4
        && weight[2..] == [1, 1]
        && *groups == 1
        && stride.iter().all(|&stride| stride == 1)
        && before.iter().chain(after).all(|&padding| padding == 0)
}

/// A product of matrices `[rows, inner]` and `[inner, columns]`, whose elements are at these distances.
fn matrix(
    [rows, inner, columns]: [u64; 3],
    left: &[f64],
    [left_row, left_inner]: [u64; 2],
    right: &[f64],
    [right_inner, right_column]: [u64; 2],
) -> Option<Vec<f64>> {
    let at = |numbers: &[f64], place: u64| numbers.get(usize::try_from(place).ok()?).copied();
    let mut product = Vec::with_capacity(usize::try_from(rows * columns).ok()?);
    for row in 0..rows {
        for column in 0..columns {
            let mut sum = 0.0;
            for k in 0..inner {
                sum += at(left, row * left_row + k * left_inner)?
                    * at(right, k * right_inner + column * right_column)?;
            }
            product.push(sum);
        }
    }
    Some(product)
}

/// A matrix product over all but the last two dimensions.
fn batched(left: Operand<'_>, right: Operand<'_>, dims: &[u64]) -> Option<Vec<f64>> {
    let [batch @ .., rows, columns] = dims else { return None };
    let inner = *left.dims.last()?;
    let whole = |operand: Operand<'_>, last: [u64; 2]| spread(operand, &[batch, &last].concat());
    let (left, right) = (whole(left, [*rows, inner])?, whole(right, [inner, *columns])?);
    let mut product = vec![];
    let [of_left, of_right] = [rows * inner, inner * columns];
    for place in 0..batch.iter().product::<u64>() {
        let start = |size: u64| usize::try_from(place * size).ok();
        let (left, right) = (left.get(start(of_left)?..)?, right.get(start(of_right)?..)?);
        let sizes = [*rows, inner, *columns];
        product.extend(matrix(sizes, left, [inner, 1], right, [*columns, 1])?);
    }
    Some(product)
}

/// A number for each place of a dimension added.
fn biased(mut numbers: Vec<f64>, bias: &[f64], dims: &[u64], axis: usize) -> Option<Vec<f64>> {
    let run = usize::try_from(dims[axis + 1..].iter().product::<u64>()).ok()?;
    for (place, number) in numbers.iter_mut().enumerate() {
        *number += bias.get(place / run.max(1) % bias.len().max(1))?;
    }
    Some(numbers)
}
