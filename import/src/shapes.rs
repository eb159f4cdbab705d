//! The dimensions of what an operation writes. Both readers use these rules, and compare them with the dimensions in
//! the file where it has them.

use crate::graph::Operation;

/// Elements of the largest tensor that is read.
const MOST_ELEMENTS: u64 = 1 << 40;

/// Dimensions of the tensor with the most of them.
const MOST_DIMENSIONS: usize = 16;

/// The number of elements, or None if it is larger than any tensor.
pub(crate) fn count(dims: &[u64]) -> Option<u64> {
    if dims.len() > MOST_DIMENSIONS {
        return None;
    }
    // An empty tensor has no elements, but the product of its other dimensions is bounded as well.
    let product = dims
        .iter()
        .try_fold(1_u64, |n, &d| n.checked_mul(d.max(1)).filter(|&n| n <= MOST_ELEMENTS))?;
    Some(if dims.contains(&0) { 0 } else { product })
}

/// Dimensions as messages show them.
pub(crate) fn shown(dims: &[u64]) -> String {
    format!("{dims:?}")
}

/// The dimensions of two tensors that are combined element by element, as in NumPy.
pub(crate) fn broadcast(left: &[u64], right: &[u64]) -> Option<Vec<u64>> {
    let rank = left.len().max(right.len());
    let at = |dims: &[u64], i: usize| {
        (i + dims.len()).checked_sub(rank).map_or(1, |position| dims[position])
    };
    (0..rank)
        .map(|i| match (at(left, i), at(right, i)) {
            (l, r) if l == r => Some(l),
            (1, r) => Some(r),
            (l, 1) => Some(l),
            _ => None,
        })
        .collect()
}

/// What an operation writes, from the dimensions of what it reads. `wanted` has the dimensions for operations that do
/// not determine them: reshapes, slices, expansions, resizes and adaptive poolings.
///
/// # Errors
/// A sentence for inputs that do not fit the operation.
pub(crate) fn output(
    operation: &Operation,
    inputs: &[&[u64]],
    wanted: Option<&[u64]>,
) -> Result<Vec<u64>, String> {
    let first = *inputs.first().ok_or("it reads nothing")?;
    match operation {
        Operation::Conv { .. } | Operation::ConvTranspose { .. } | Operation::Pool { .. } => {
            windows(operation, inputs)
        }
        Operation::Linear { .. } | Operation::MatMul | Operation::Attention { .. } => {
            products(operation, inputs)
        }
        Operation::BatchNorm { .. }
        | Operation::LayerNorm { .. }
        | Operation::RmsNorm { .. }
        | Operation::GroupNorm { .. }
        | Operation::Prelu => norms(operation, inputs),
        Operation::Apply(_)
        | Operation::Roll { .. }
        | Operation::Rotary
        | Operation::Normalize
        | Operation::ResponseNorm => Ok(first.to_vec()),
        Operation::Binary(_) => {
            let second = *inputs.get(1).ok_or("it reads one value instead of two")?;
            broadcast(first, second).ok_or_else(|| {
                format!(
                    "{} and {} cannot be combined element by element",
                    shown(first),
                    shown(second)
                )
            })
        }
        Operation::Softmax { axis } => {
            dimension(first, *axis)?;
            Ok(first.to_vec())
        }
        Operation::Reduce { axes, keep, .. } => reduced(first, axes, *keep),
        Operation::PixelShuffle { .. }
        | Operation::PixelUnshuffle { .. }
        | Operation::ChannelShuffle { .. } => blocks(operation, first),
        Operation::Embedding => {
            let numbers = *inputs.get(1).ok_or("it reads one value instead of two")?;
            let [_, width] = *first else {
                return Err(format!(
                    "a table has two dimensions, and this one is {}",
                    shown(first)
                ));
            };
            Ok(numbers.iter().copied().chain([width]).collect())
        }
        Operation::Reshape
        | Operation::Permute { .. }
        | Operation::Expand
        | Operation::Concat { .. }
        | Operation::Slice { .. }
        | Operation::Pad { .. } => moves(operation, inputs, wanted),
        Operation::AdaptivePool(_) | Operation::Resize { .. } => {
            let wanted = wanted.ok_or("the size of its output is not known")?;
            if first.len() < 3 || wanted.len() != first.len() || wanted[..2] != first[..2] {
                return Err(format!("{} cannot become {}", shown(first), shown(wanted)));
            }
            Ok(wanted.to_vec())
        }
        Operation::Unsupported { .. } | Operation::Dependent => wanted
            .map(<[u64]>::to_vec)
            .ok_or_else(|| "the size of its output is not known".to_owned()),
    }
}

fn dimension(dims: &[u64], axis: usize) -> Result<u64, String> {
    dims.get(axis).copied().ok_or_else(|| format!("{} has no dimension {axis}", shown(dims)))
}

fn windows(operation: &Operation, inputs: &[&[u64]]) -> Result<Vec<u64>, String> {
    let [n, channels, spatial @ ..] = inputs[0] else {
        return Err(format!("{} has no channels", shown(inputs[0])));
    };
    if let Operation::Pool { kernel, stride, dilation, before, after, ceil_mode, .. } = operation {
        let kernel: Vec<u64> = kernel.iter().map(|&k| u64::from(k)).collect();
        let lists = [stride, dilation, before, after];
        let sizes = covered(spatial, &kernel, lists, *ceil_mode)?;
        return Ok([*n, *channels].into_iter().chain(sizes).collect());
    }
    let weight = *inputs.get(1).ok_or("it has no weight")?;
    let [first, second, kernel @ ..] = weight else {
        return Err(format!("its weight is {}", shown(weight)));
    };
    let (outputs, sizes) = match operation {
        Operation::Conv { stride, dilation, before, after, groups } => {
            let groups = u64::from(*groups);
            if groups == 0 || second.checked_mul(groups) != Some(*channels) || first % groups != 0 {
                return Err(format!(
                    "a weight of {} in {groups} groups does not fit {channels} channels",
                    shown(weight)
                ));
            }
            (*first, covered(spatial, kernel, [stride, dilation, before, after], false)?)
        }
        Operation::ConvTranspose { stride, dilation, before, after, output_padding, groups } => {
            let groups = u64::from(*groups);
            if groups == 0 || first != channels || first % groups != 0 {
                return Err(format!(
                    "a weight of {} in {groups} groups does not fit {channels} channels",
                    shown(weight)
                ));
            }
            let outputs = second.checked_mul(groups).ok_or("it has too many channels")?;
            let lists = [stride, dilation, before, after, output_padding];
            (outputs, spread(spatial, kernel, lists)?)
        }
        _ => return Err("it has no windows".to_owned()),
    };
    if let Some(bias) = inputs.get(2)
        && **bias != [outputs]
    {
        return Err(format!("its bias is {}, and it has {outputs} channels", shown(bias)));
    }
    Ok([*n, outputs].into_iter().chain(sizes).collect())
}

/// Sizes after windows. `lists`: stride, dilation, padding before and after.
fn covered(
    spatial: &[u64],
    kernel: &[u64],
    lists: [&Vec<u32>; 4],
    ceil_mode: bool,
) -> Result<Vec<u64>, String> {
    let rank = spatial.len();
    if kernel.len() != rank || lists.iter().any(|list| list.len() != rank) {
        return Err(format!("its windows have {} dimensions, and its input {rank}", kernel.len()));
    }
    (0..rank)
        .map(|i| {
            let [stride, dilation, before, after] = lists.map(|list| u64::from(list[i]));
            let padded = spatial[i].saturating_add(before + after);
            let reach = kernel[i].saturating_sub(1).saturating_mul(dilation).saturating_add(1);
            // A last window may reach beyond the padding if sizes are rounded up.
            let spare = if ceil_mode { stride.saturating_sub(1) } else { 0 };
            let room = padded.saturating_add(spare).checked_sub(reach);
            let Some(room) = room.filter(|_| stride > 0 && kernel[i] > 0 && dilation > 0) else {
                return Err(format!(
                    "a window of {} at stride {stride} and dilation {dilation} does not fit a size of {padded}",
                    kernel[i]
                ));
            };
            let outputs = room / stride + 1;
            // It is left out if it would begin in the padding after the input.
            let beyond = ceil_mode && (outputs - 1) * stride >= spatial[i].saturating_add(before);
            Ok(outputs - u64::from(beyond))
        })
        .collect()
}

/// Sizes after transposed windows. `lists`: stride, dilation, cut off before and after, added after.
fn spread(spatial: &[u64], kernel: &[u64], lists: [&Vec<u32>; 5]) -> Result<Vec<u64>, String> {
    let rank = spatial.len();
    if kernel.len() != rank || lists.iter().any(|list| list.len() != rank) {
        return Err(format!("its windows have {} dimensions, and its input {rank}", kernel.len()));
    }
    (0..rank)
        .map(|i| {
            let [stride, dilation, before, after, added] = lists.map(|list| u64::from(list[i]));
            let full = spatial[i]
                .saturating_sub(1)
                .saturating_mul(stride)
                .saturating_add(kernel[i].saturating_sub(1).saturating_mul(dilation))
                .saturating_add(1 + added);
            full.checked_sub(before + after)
                .filter(|&size| size > 0 && stride > 0)
                .ok_or_else(|| format!("nothing is left of a size of {full} after its padding"))
        })
        .collect()
}

fn products(operation: &Operation, inputs: &[&[u64]]) -> Result<Vec<u64>, String> {
    let left = inputs[0];
    let right = *inputs.get(1).ok_or("it reads one value instead of two")?;
    let mismatch = || format!("{} and {} cannot be multiplied", shown(left), shown(right));
    match operation {
        Operation::Linear { transposed } => {
            let [rows, columns] = *right else { return Err(mismatch()) };
            let (width, outputs) = if *transposed { (columns, rows) } else { (rows, columns) };
            let Some((&last, others)) = left.split_last() else { return Err(mismatch()) };
            if last != width {
                return Err(mismatch());
            }
            if let Some(bias) = inputs.get(2)
                && **bias != [outputs]
            {
                return Err(format!("its bias is {}, and it has {outputs} outputs", shown(bias)));
            }
            Ok(others.iter().copied().chain([outputs]).collect())
        }
        Operation::MatMul => {
            let ([left_batch @ .., rows, inner], [right_batch @ .., same, columns]) = (left, right)
            else {
                return Err(mismatch());
            };
            let batch = broadcast(left_batch, right_batch)
                .filter(|_| inner == same)
                .ok_or_else(mismatch)?;
            Ok(batch.into_iter().chain([*rows, *columns]).collect())
        }
        Operation::Attention { .. } => {
            let values = *inputs.get(2).ok_or("it reads two values instead of three")?;
            let ([n, heads, l, d], [n_k, kv_heads, s, d_k], [n_v, kv_heads_v, s_v, e]) =
                (left, right, values)
            else {
                return Err("its queries, keys and values must have four dimensions".to_owned());
            };
            let fit = n == n_k
                && n == n_v
                && d == d_k
                && s == s_v
                && kv_heads == kv_heads_v
                && *kv_heads > 0
                && heads % kv_heads == 0;
            let fit_mask = inputs.get(3).is_none_or(|mask| {
                broadcast(mask, &[*n, *heads, *l, *s])
                    .is_some_and(|all| all == [*n, *heads, *l, *s])
            });
            if !fit || !fit_mask {
                let all: Vec<String> = inputs.iter().map(|dims| shown(dims)).collect();
                return Err(format!("its inputs {} do not fit together", all.join(", ")));
            }
            Ok(vec![*n, *heads, *l, *e])
        }
        _ => Err("it is no product".to_owned()),
    }
}

fn norms(operation: &Operation, inputs: &[&[u64]]) -> Result<Vec<u64>, String> {
    let first = inputs[0];
    let wanted: Vec<u64> = match operation {
        Operation::LayerNorm { dimensions, .. } => {
            let kept = first.len().checked_sub(*dimensions).filter(|_| *dimensions > 0);
            let kept = kept.ok_or_else(|| {
                format!("{} has no {dimensions} dimensions to normalize", shown(first))
            })?;
            first[kept..].to_vec()
        }
        Operation::RmsNorm { .. } => {
            vec![*first.last().ok_or("a scalar cannot be normalized")?]
        }
        _ => vec![dimension(first, 1)?],
    };
    if let Operation::GroupNorm { groups, .. } = operation
        && (*groups == 0 || !wanted[0].is_multiple_of(u64::from(*groups)))
    {
        return Err(format!("{} channels are not {groups} groups", wanted[0]));
    }
    let shared = matches!(operation, Operation::Prelu);
    for parameter in &inputs[1..] {
        if **parameter != *wanted && !(shared && **parameter == [1]) {
            return Err(format!(
                "a parameter of {} does not fit {}",
                shown(parameter),
                shown(first)
            ));
        }
    }
    Ok(first.to_vec())
}

fn reduced(dims: &[u64], axes: &[usize], keep: bool) -> Result<Vec<u64>, String> {
    for &axis in axes {
        dimension(dims, axis)?;
    }
    let rest = dims.iter().enumerate().filter_map(|(i, &d)| match (axes.contains(&i), keep) {
        (false, _) => Some(d),
        (true, true) => Some(1),
        (true, false) => None,
    });
    Ok(rest.collect())
}

fn blocks(operation: &Operation, dims: &[u64]) -> Result<Vec<u64>, String> {
    let misfit = || format!("{} has no such blocks", shown(dims));
    let divided = |size: u64, by: u64| {
        (by > 0 && size.is_multiple_of(by)).then(|| size / by).ok_or_else(misfit)
    };
    if let Operation::ChannelShuffle { groups } = operation {
        divided(dimension(dims, 1)?, u64::from(*groups))?;
        return Ok(dims.to_vec());
    }
    let [n, c, h, w] = *dims else { return Err(misfit()) };
    match operation {
        Operation::PixelShuffle { block } => {
            let block = u64::from(*block);
            let grown = |size: u64| size.checked_mul(block).ok_or_else(misfit);
            Ok(vec![n, divided(c, block.saturating_mul(block))?, grown(h)?, grown(w)?])
        }
        Operation::PixelUnshuffle { block } => {
            let block = u64::from(*block);
            let channels = c.checked_mul(block.saturating_mul(block)).ok_or_else(misfit)?;
            Ok(vec![n, channels, divided(h, block)?, divided(w, block)?])
        }
        _ => Err(misfit()),
    }
}

fn moves(
    operation: &Operation,
    inputs: &[&[u64]],
    wanted: Option<&[u64]>,
) -> Result<Vec<u64>, String> {
    let first = inputs[0];
    match operation {
        Operation::Permute { order } => {
            let mut seen = order.clone();
            seen.sort_unstable();
            if !seen.iter().copied().eq(0..first.len()) {
                return Err(format!("{order:?} is no order of the dimensions of {}", shown(first)));
            }
            Ok(order.iter().map(|&i| first[i]).collect())
        }
        Operation::Concat { axis } => {
            let mut joined = first.to_vec();
            dimension(first, *axis)?;
            joined[*axis] = 0;
            for input in inputs {
                let fits = input.len() == first.len()
                    && (0..first.len()).all(|i| i == *axis || input[i] == first[i]);
                if !fits {
                    return Err(format!(
                        "{} and {} cannot be joined along dimension {axis}",
                        shown(first),
                        shown(input)
                    ));
                }
                joined[*axis] = joined[*axis].saturating_add(input[*axis]);
            }
            Ok(joined)
        }
        Operation::Pad { before, after } => {
            if before.len() != first.len() || after.len() != first.len() {
                return Err(format!("{} has other dimensions than its padding", shown(first)));
            }
            let padded =
                |i: usize| first[i].saturating_add(u64::from(before[i]) + u64::from(after[i]));
            Ok((0..first.len()).map(padded).collect())
        }
        _ => {
            let wanted = wanted.ok_or("the size of its output is not known")?;
            let fits = match operation {
                Operation::Reshape => count(wanted) == count(first) && count(first).is_some(),
                Operation::Expand => {
                    wanted.len() == first.len()
                        && broadcast(first, wanted).is_some_and(|dims| dims == wanted)
                }
                Operation::Slice { axis, start, step } => {
                    sliced(first, wanted, *axis, *start, *step)
                }
                _ => false,
            };
            match fits {
                true => Ok(wanted.to_vec()),
                false => Err(format!("{} cannot become {}", shown(first), shown(wanted))),
            }
        }
    }
}

fn sliced(dims: &[u64], wanted: &[u64], axis: usize, start: u64, step: u64) -> bool {
    let others = |dims: &[u64]| {
        let mut dims = dims.to_vec();
        dims[axis] = 0;
        dims
    };
    if axis >= dims.len() || wanted.len() != dims.len() || step == 0 {
        return false;
    }
    let last = wanted[axis].saturating_sub(1).saturating_mul(step).saturating_add(start);
    others(dims) == others(wanted) && (wanted[axis] == 0 || last < dims[axis])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Binary, Pooling};

    fn conv(stride: u32, padding: u32, groups: u32) -> Operation {
        Operation::Conv {
            stride: vec![stride; 2],
            dilation: vec![1; 2],
            before: vec![padding; 2],
            after: vec![padding; 2],
            groups,
        }
    }

    fn pool(kernel: u32, stride: u32, padding: u32, ceil_mode: bool) -> Operation {
        Operation::Pool {
            pooling: Pooling::Max,
            kernel: vec![kernel],
            stride: vec![stride],
            dilation: vec![1],
            before: vec![padding],
            after: vec![padding],
            ceil_mode,
        }
    }

    #[test]
    fn convolutions_have_the_sizes_of_pytorch() {
        let size = |operation: Operation, weight: &[u64]| {
            output(&operation, &[&[1, 8, 56, 56], weight], None)
        };
        assert_eq!(size(conv(2, 3, 1), &[64, 8, 7, 7]), Ok(vec![1, 64, 28, 28]));
        assert_eq!(size(conv(1, 1, 8), &[16, 1, 3, 3]), Ok(vec![1, 16, 56, 56]));
        assert_eq!(
            size(conv(1, 1, 2), &[16, 1, 3, 3]),
            Err("a weight of [16, 1, 3, 3] in 2 groups does not fit 8 channels".to_owned())
        );
    }

    #[test]
    fn a_last_window_begins_inside_the_padded_input() {
        let size = |length: u64, operation: Operation| {
            output(&operation, &[&[1, 1, length]], None).unwrap()[2]
        };
        assert_eq!(size(6, pool(3, 2, 0, false)), 2);
        assert_eq!(size(6, pool(3, 2, 0, true)), 3);
        // torch.nn.MaxPool1d(2, 2, padding=1, ceil_mode=True) of length 4 gives 3, not 4.
        assert_eq!(size(4, pool(2, 2, 1, true)), 3);
        assert_eq!(size(1, pool(1, 2, 0, true)), 1);
        assert_eq!(size(1, pool(2, 2, 0, true)), 1);
    }

    #[test]
    fn elementwise_operands_broadcast_as_in_numpy() {
        let add = Operation::Binary(Binary::Add);
        assert_eq!(output(&add, &[&[2, 1, 4], &[3, 1]], None), Ok(vec![2, 3, 4]));
        assert_eq!(
            output(&add, &[&[2, 3], &[2]], None),
            Err("[2, 3] and [2] cannot be combined element by element".to_owned())
        );
    }

    #[test]
    fn a_tensor_of_too_many_elements_has_no_count() {
        assert_eq!(count(&[]), Some(1));
        assert_eq!(count(&[0, 5]), Some(0));
        assert_eq!(count(&[1 << 60]), None);
        assert_eq!(count(&[0, 1 << 60]), None);
        assert_eq!(count(&[1 << 30, 1 << 30]), None);
    }
}
