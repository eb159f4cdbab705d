use super::*;

fn on(operation: &Operation, operands: &[(&[u64], &[f64])], dims: &[u64]) -> Vec<f64> {
    let operands: Vec<Operand<'_>> =
        operands.iter().map(|&(dims, numbers)| Operand { dims, numbers }).collect();
    evaluate(operation, &operands, dims, Kind::Integer).unwrap()
}

const SIX: (&[u64], &[f64]) = (&[2, 3], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);

#[test]
fn elements_move_as_in_numpy() {
    let order = Operation::Permute { order: vec![1, 0] };
    assert_eq!(on(&order, &[SIX], &[3, 2]), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    let slice = Operation::Slice { axis: 1, start: 0, step: 2 };
    assert_eq!(on(&slice, &[SIX], &[2, 2]), [0.0, 2.0, 3.0, 5.0]);
    let concat = Operation::Concat { axis: 1 };
    let more: (&[u64], &[f64]) = (&[2, 1], &[9.0, 8.0]);
    assert_eq!(on(&concat, &[SIX, more], &[2, 4]), [0.0, 1.0, 2.0, 9.0, 3.0, 4.0, 5.0, 8.0]);
    let pad = Operation::Pad { before: vec![0, 1], after: vec![1, 0] };
    assert_eq!(on(&pad, &[more], &[3, 2]), [0.0, 9.0, 0.0, 8.0, 0.0, 0.0]);
    assert_eq!(on(&Operation::Expand, &[more], &[2, 2]), [9.0, 9.0, 8.0, 8.0]);
    let rows: (&[u64], &[f64]) = (&[1, 2], &[1.0, 0.0]);
    assert_eq!(on(&Operation::Embedding, &[SIX, rows], &[1, 2, 3]), [3.0, 4.0, 5.0, 0.0, 1.0, 2.0]);
}

#[test]
fn whole_numbers_divide_towards_zero() {
    let div = Operation::Binary(Binary::Div);
    assert_eq!(on(&div, &[(&[2], &[7.0, -7.0]), (&[], &[2.0])], &[2]), [3.0, -3.0]);
    let zero = [Operand { dims: &[], numbers: &[1.0] }, Operand { dims: &[], numbers: &[0.0] }];
    assert_eq!(evaluate(&div, &zero, &[], Kind::Integer), None);
}

#[test]
fn reductions_keep_the_order_of_the_other_dimensions() {
    let reduce = |reduction, axis| Operation::Reduce { reduction, axes: vec![axis], keep: false };
    assert_eq!(on(&reduce(Reduction::Sum, 0), &[SIX], &[3]), [3.0, 5.0, 7.0]);
    assert_eq!(on(&reduce(Reduction::Mean, 1), &[SIX], &[2]), [1.0, 4.0]);
    assert_eq!(on(&reduce(Reduction::Max, 1), &[SIX], &[2]), [2.0, 5.0]);
}

fn constant(operation: OnConstants, operands: &[(&[u64], &[f64])]) -> (Vec<u64>, Vec<f64>) {
    let shapes: Vec<_> = operands.iter().map(|&(dims, _)| (dims, Kind::Integer)).collect();
    let (dims, _) = output(&operation, &shapes).unwrap();
    let operands: Vec<Operand<'_>> =
        operands.iter().map(|&(dims, numbers)| Operand { dims, numbers }).collect();
    let numbers = evaluate_constant(&operation, &operands, &dims).unwrap();
    (dims, numbers)
}

#[test]
fn what_only_constants_have_is_computed_as_in_numpy() {
    let gather = constant(OnConstants::Gather(1), &[SIX, (&[2], &[-1.0, 0.0])]);
    assert_eq!(gather, (vec![2, 2], vec![2.0, 0.0, 5.0, 3.0]));
    let triangle = OnConstants::Triangle { upper: true, diagonal: 1 };
    assert_eq!(constant(triangle, &[SIX]).1, [0.0, 1.0, 2.0, 0.0, 0.0, 5.0]);
    let modulo = constant(OnConstants::Mod, &[(&[2], &[7.0, -7.0]), (&[], &[4.0])]);
    assert_eq!(modulo.1, [3.0, 1.0]);
    let tiled = constant(OnConstants::Tile(vec![1, 2]), &[(&[2, 1], &[4.0, 5.0])]);
    assert_eq!(tiled, (vec![2, 2], vec![4.0, 4.0, 5.0, 5.0]));
    let chosen =
        constant(OnConstants::Where, &[(&[2], &[1.0, 0.0]), (&[], &[8.0]), (&[2], &[1.0, 2.0])]);
    assert_eq!(chosen, (vec![2], vec![8.0, 2.0]));
}

#[test]
fn products_are_those_of_pytorch() {
    let on = |operation: &Operation, operands: &[(&[u64], &[f64])], dims: &[u64]| {
        let operands: Vec<Operand<'_>> =
            operands.iter().map(|&(dims, numbers)| Operand { dims, numbers }).collect();
        product(operation, &operands, dims)
    };
    // [[0, 1, 2], [3, 4, 5]] times its transpose, plus a bias.
    let linear = Operation::Linear { transposed: true };
    let bias: (&[u64], &[f64]) = (&[2], &[100.0, 200.0]);
    assert_eq!(on(&linear, &[SIX, SIX, bias], &[2, 2]), Some(vec![105.0, 214.0, 114.0, 250.0]));
    let turned: (&[u64], &[f64]) = (&[3, 2], &[0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    let linear = Operation::Linear { transposed: false };
    assert_eq!(on(&linear, &[SIX, turned], &[2, 2]), Some(vec![5.0, 14.0, 14.0, 50.0]));
    // One matrix for both of a batch.
    let both: (&[u64], &[f64]) = (&[2, 1, 2], &[1.0, 0.0, 0.0, 1.0]);
    let matmul = Operation::MatMul;
    assert_eq!(
        on(&matmul, &[both, SIX], &[2, 1, 3]),
        Some(vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0]),
        "its rows"
    );
    let conv = |stride: u32| Operation::Conv {
        stride: vec![stride; 2],
        dilation: vec![1; 2],
        before: vec![0; 2],
        after: vec![0; 2],
        groups: 1,
    };
    let map: (&[u64], &[f64]) = (&[1, 2, 1, 3], SIX.1);
    let weight: (&[u64], &[f64]) = (&[1, 2, 1, 1], &[1.0, 10.0]);
    assert_eq!(on(&conv(1), &[map, weight], &[1, 1, 1, 3]), Some(vec![30.0, 41.0, 52.0]));
    assert_eq!(on(&conv(2), &[map, weight], &[1, 1, 1, 2]), None);
    assert_eq!(work(&Operation::MatMul, &[&[7, 5], &[5, 3]], &[7, 3]), 105);
}

#[test]
fn elements_are_gathered_along_a_dimension() {
    let on = |axis: usize, positions: (&[u64], &[f64])| {
        let operands = [SIX, positions].map(|(dims, numbers)| Operand { dims, numbers });
        let shapes = [SIX.0, positions.0].map(|dims| (dims, Kind::Integer));
        let (dims, _) = output(&OnConstants::Along(axis), &shapes).ok()?;
        evaluate_constant(&OnConstants::Along(axis), &operands, &dims)
    };
    // As torch.gather: [[0, 1, 2], [3, 4, 5]] at these places of each row, and of each column.
    assert_eq!(on(1, (&[2, 2], &[2.0, 0.0, -1.0, 1.0])), Some(vec![2.0, 0.0, 5.0, 4.0]));
    assert_eq!(on(0, (&[1, 3], &[1.0, 0.0, 1.0])), Some(vec![3.0, 1.0, 5.0]));
    assert_eq!(on(1, (&[2, 1], &[3.0, 0.0])), None);
    assert_eq!(on(1, (&[3, 1], &[0.0; 3])), None);
}
