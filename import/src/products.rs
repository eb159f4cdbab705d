//! Matrix products, attention and einsum, as both formats write them.

use crate::build::Builder;
use crate::error::{Step, malformed, unsupported};
use crate::graph::{Binary, Kind, Operation, ValueId};

/// The product of the last dimension with a constant matrix, and a bias.
pub(crate) fn linear(
    b: &mut Builder,
    x: ValueId,
    weight: ValueId,
    transposed: bool,
    bias: Option<ValueId>,
) -> Step<ValueId> {
    // The name under which a weight is stored belongs to the matrix before it was transposed.
    let (weight, transposed) = match b.transposed(weight) {
        Some(stored) => (stored, !transposed),
        None => (weight, transposed),
    };
    let outputs = b.dims(weight).get(usize::from(!transposed)).copied();
    let fits = |bias: ValueId| {
        b.is_constant(bias) && Some(b.dims(bias)) == outputs.as_ref().map(std::slice::from_ref)
    };
    match bias {
        Some(bias) if !fits(bias) => {
            let product = b.apply(Operation::Linear { transposed }, &[x, weight])?;
            b.binary(Binary::Add, product, bias)
        }
        Some(bias) => b.apply(Operation::Linear { transposed }, &[x, weight, bias]),
        None => b.apply(Operation::Linear { transposed }, &[x, weight]),
    }
}

/// `left @ right`, by the rules of NumPy.
pub(crate) fn matmul(b: &mut Builder, left: ValueId, right: ValueId) -> Step<ValueId> {
    let (left_rank, right_rank) = (b.rank(left), b.rank(right));
    if left_rank == 0 || right_rank == 0 {
        return malformed("a scalar is no matrix");
    }
    if right_rank == 1 {
        let column = b.unsqueeze(right, &[-1])?;
        let product = matmul(b, left, column)?;
        let last = b.rank(product) - 1;
        return b.squeeze(product, Some(&[last]));
    }
    if b.is_constant(right) && !b.is_constant(left) && right_rank == 2 {
        return linear(b, left, right, false, None);
    }
    if left_rank == 1 {
        let row = b.unsqueeze(left, &[0])?;
        let product = b.apply(Operation::MatMul, &[row, right])?;
        let rows = b.rank(product) - 2;
        return b.squeeze(product, Some(&[rows]));
    }
    b.apply(Operation::MatMul, &[left, right])
}

/// What is added to the scores, and the other parameters of an attention.
pub(crate) struct Attention {
    pub(crate) mask: Option<ValueId>,
    pub(crate) causal: bool,
    pub(crate) scale: Option<f64>,
}

impl Attention {
    /// Attention of `[..., l, d]`, with all dimensions in front of the last two as heads.
    pub(crate) fn apply(self, b: &mut Builder, [q, k, v]: [ValueId; 3]) -> Step<ValueId> {
        let dims = b.dims(q).to_vec();
        let four = |b: &mut Builder, x: ValueId| match b.dims(x) {
            [_, _, _, _] => Ok(x),
            &[heads, length, width] => b.reshape(x, &[1, heads, length, width]),
            &[length, width] => b.reshape(x, &[1, 1, length, width]),
            other => unsupported(format!("attention of {other:?}: four dimensions are read")),
        };
        let mut inputs = vec![four(b, q)?, four(b, k)?, four(b, v)?];
        if let Some(mask) = self.mask {
            if b.value(mask).kind == Kind::Boolean && !b.is_constant(mask) {
                return unsupported(
                    "attention with a mask that is computed from the model's input",
                );
            }
            inputs.push(mask);
        }
        let (causal, scale) = (self.causal, self.scale);
        let operation = Operation::Attention { causal, scale, cosine: false };
        let output = b.apply(operation, &inputs)?;
        let width = b.dims(output)[3];
        let own = [&dims[..dims.len() - 1], &[width]].concat();
        b.reshape(output, &own)
    }
}

/// An einsum of two values without repeated or one-sided sums: reshapes and orders around a matrix product.
pub(crate) fn einsum(b: &mut Builder, equation: &str, operands: &[ValueId]) -> Step<ValueId> {
    let why = || {
        format!("the einsum `{}`: products of two values are read", crate::error::shown(equation))
    };
    let text: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
    let (Some((inputs, output)), [left, right]) = (text.split_once("->"), operands) else {
        return unsupported(why());
    };
    let Some((first, second)) = inputs.split_once(',') else { return unsupported(why()) };
    let labels = |text: &str| text.chars().collect::<Vec<char>>();
    let (first, second, output) = (labels(first), labels(second), labels(output));
    let distinct = |list: &[char]| {
        (0..list.len()).all(|i| list[i].is_ascii_alphabetic() && !list[..i].contains(&list[i]))
    };
    if ![&first, &second, &output].into_iter().all(|list| distinct(list)) {
        return unsupported(why());
    }
    if first.len() != b.rank(*left) || second.len() != b.rank(*right) {
        return malformed(format!(
            "the einsum `{equation}` does not fit {:?} and {:?}",
            b.dims(*left),
            b.dims(*right)
        ));
    }
    let of = |list: &[char], in_other: bool, in_output: bool, other: &[char]| -> Vec<char> {
        let chosen = |c: &&char| other.contains(c) == in_other && output.contains(c) == in_output;
        list.iter().filter(chosen).copied().collect()
    };
    let batch = of(&first, true, true, &second);
    let inner = of(&first, true, false, &second);
    let rows = of(&first, false, true, &second);
    let columns = of(&second, false, true, &first);
    let one_sided = !of(&first, false, false, &second).is_empty()
        || !of(&second, false, false, &first).is_empty();
    if one_sided || output.len() != batch.len() + rows.len() + columns.len() {
        return unsupported(why());
    }
    let sizes = |b: &Builder, list: &[char]| -> Vec<u64> {
        let size = |c: &char| {
            let in_first = first.iter().position(|l| l == c).map(|i| b.dims(*left)[i]);
            in_first.or_else(|| second.iter().position(|l| l == c).map(|i| b.dims(*right)[i]))
        };
        list.iter().filter_map(size).collect()
    };
    let (rows_sizes, columns_sizes, batch_sizes) =
        (sizes(b, &rows), sizes(b, &columns), sizes(b, &batch));
    let arranged_left = arranged(b, *left, &first, [&batch, &rows, &inner])?;
    let arranged_right = arranged(b, *right, &second, [&batch, &inner, &columns])?;
    let product = matmul(b, arranged_left, arranged_right)?;
    let full = b.reshape(product, &[batch_sizes, rows_sizes, columns_sizes].concat())?;
    let all = [batch, rows, columns].concat();
    let order = output.iter().filter_map(|c| all.iter().position(|l| l == c)).collect();
    b.permute(full, order)
}

/// A value with its dimensions in the order of three groups. The last two groups become one dimension each.
fn arranged(
    b: &mut Builder,
    x: ValueId,
    labels: &[char],
    [batch, rows, columns]: [&Vec<char>; 3],
) -> Step<ValueId> {
    let wanted = [batch.as_slice(), rows, columns].concat();
    let order: Vec<usize> =
        wanted.iter().filter_map(|c| labels.iter().position(|l| l == c)).collect();
    let ordered = b.permute(x, order)?;
    let dims = b.dims(ordered);
    let (front, rest) = dims.split_at(batch.len());
    let (row_sizes, column_sizes) = rest.split_at(rows.len());
    let matrix = [front, &[row_sizes.iter().product()], &[column_sizes.iter().product()]].concat();
    b.reshape(ordered, &matrix)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Graph;

    fn graph(dims: &[&[u64]], make: impl Fn(&mut Builder, &[ValueId]) -> ValueId) -> Graph {
        let mut b = Builder::default();
        let inputs: Vec<ValueId> =
            dims.iter().map(|dims| b.input("x", dims.to_vec(), Kind::Float).unwrap()).collect();
        let output = make(&mut b, &inputs);
        b.finish(None, &[output])
    }

    fn operations(graph: &Graph) -> Vec<Operation> {
        graph.nodes.iter().map(|node| node.operation.clone()).collect()
    }

    #[test]
    fn an_einsum_of_attention_scores_is_a_matrix_product() {
        let scores = graph(&[&[2, 4, 8, 16], &[2, 4, 9, 16]], |b, x| {
            einsum(b, "bhid, bhjd -> bhij", x).unwrap()
        });
        assert_eq!(
            operations(&scores),
            [Operation::Permute { order: vec![0, 1, 3, 2] }, Operation::MatMul]
        );
        assert_eq!(scores.values[scores.outputs[0]].dims, [2, 4, 8, 9]);
    }

    #[test]
    fn an_einsum_may_join_and_reorder_dimensions() {
        let output =
            graph(&[&[2, 5, 3, 4], &[3, 4, 7]], |b, x| einsum(b, "blhd,hde->ebl", x).unwrap());
        assert_eq!(output.values[output.outputs[0]].dims, [7, 2, 5]);
    }

    #[test]
    fn other_einsums_are_not_supported() {
        let mut b = Builder::default();
        let x = b.input("x", vec![3, 3], Kind::Float).unwrap();
        for equation in ["ii->i", "ij,jk", "ij,kl->il", "...i,ij->j", "ij,ij,ij->i"] {
            let step = einsum(&mut b, equation, &[x, x]);
            assert!(matches!(step, Err(crate::error::Stop::Unsupported(_))), "{equation}");
        }
    }

    #[test]
    fn a_transposed_weight_keeps_its_stored_name() {
        let mut b = Builder::default();
        let x = b.input("x", vec![1, 8], Kind::Float).unwrap();
        let stored = b.constant("fc.weight", vec![4, 8], Kind::Float, None).unwrap();
        let turned = b.transpose(stored, 0, 1).unwrap();
        let y = matmul(&mut b, x, turned).unwrap();
        let graph = b.finish(None, &[y]);
        assert_eq!(operations(&graph), [Operation::Linear { transposed: true }]);
        assert_eq!(graph.values[graph.nodes[0].inputs[1]].name, "fc.weight");
    }
}
