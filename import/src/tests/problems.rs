//! What cannot be expressed.

use super::*;
use crate::ImportError;

/// What a problem is told as.
fn told(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(Problem::to_string).collect()
}

#[test]
fn problems_are_all_listed_and_there_is_no_network() {
    let mut model = Model::default();
    let x = model.input(&[1, 8, 8, 8]);
    let y = model.apply(Function::Abs, x);
    let y = model.conv("a", y, 8, [3, 3], 1, 1);
    let z = model.add(Operation::Softmax { axis: 2 }, &[x], &[1, 8, 8, 8]);
    let output = model.binary(Binary::Add, y, z);
    let problems = model.import(output).unwrap_err();
    let told: Vec<String> = problems.iter().map(Problem::to_string).collect();
    assert_eq!(
        told,
        [
            "node0 (Apply): the function Abs is not in the catalog",
            "node3 (Softmax): a softmax along dimension 2 of a tensor in the order [1, c:8, h:8, w:8]; the catalog has \
             one over the channels, and attention",
        ]
    );
}

#[test]
fn problems_behind_another_one_are_listed_too() {
    let mut model = Model::default();
    let x = model.input(&[1, 8, 8, 8]);
    // A sum over the channels has no place, so the place of what it gives is not known.
    let reduce = Operation::Reduce { reduction: Reduction::Sum, axes: vec![1], keep: true };
    let sum = model.add(reduce, &[x], &[1, 1, 8, 8]);
    let root = model.apply(Function::Sqrt, sum);
    let quotient = model.binary(Binary::Div, x, root);
    // A convolution reads a map, whatever gave it.
    let y = model.conv("a", quotient, 8, [3, 3], 1, 1);
    let z = model.add(Operation::Softmax { axis: 2 }, &[y], &[1, 8, 8, 8]);
    let shared = model.binary(Binary::Max, z, y);
    let output = model.binary(Binary::Add, quotient, shared);
    let problems = model.import(output).unwrap_err();
    assert_eq!(
        told(&problems),
        [
            "node0 (Reduce): Sum over the dimensions [1] of a tensor in the order [1, c:8, h:8, w:8]; the catalog has the \
             mean over all positions",
            "node1 (Apply): the function Sqrt is not in the catalog",
            "node2 (Binary): Div of two computed values is not in the catalog",
            "node5 (Softmax): a softmax along dimension 2 of a tensor in the order [1, c:8, h:8, w:8]; the catalog has \
             one over the channels, and attention",
            "node6 (Binary): Max of two computed values is not in the catalog",
        ]
    );
}

#[test]
fn the_same_problem_of_many_layers_is_one_line() {
    let problem = |node: &str, why: &str| Problem {
        node: node.to_owned(),
        operator: "Abs".to_owned(),
        why: why.to_owned(),
    };
    let all = vec![problem("a", "no"), problem("b", "never"), problem("c", "no")];
    assert_eq!(
        ImportError::Inexpressible(all).to_string(),
        "3 parts of it cannot be expressed:\n  a (Abs): no (and 1 more like it)\n  b (Abs): never"
    );
}

#[test]
fn a_model_with_two_inputs_is_refused_with_its_other_problems() {
    let mut model = Model::default();
    let x = model.input(&[1, 8, 8, 8]);
    let y = model.input(&[1, 8, 8, 8]);
    let sum = model.binary(Binary::Add, x, y);
    let output = model.apply(Function::Erf, sum);
    let problems = model.import(output).unwrap_err();
    assert_eq!(
        told(&problems),
        [
            "the input (input): the model has 2 inputs, and a network has one: export it with the others as constants",
            "node1 (Apply): the function Erf is not in the catalog",
        ]
    );
}

#[test]
fn a_picture_without_a_batch_is_told() {
    let unbatched = |dims: &[u64], batched: &[u64]| {
        let mut model = Model::default();
        let x = model.input(dims);
        let x = model.reshape(x, batched);
        let output = model.conv("a", x, 8, [3, 3], 1, 1);
        model.import(output)
    };
    assert_eq!(
        told(&unbatched(&[3, 8, 8], &[1, 3, 8, 8]).unwrap_err()),
        [
            "x (input): its shape [3, 8, 8] has no batch dimension: export the model with one in front, as in [1, 3, 8, 8]"
        ]
    );
    // A batch of one picture of one channel is the same as one channel without a batch.
    let one = unbatched(&[1, 8, 8], &[1, 1, 8, 8]).unwrap();
    assert_eq!(one.network.input.map(|input| (input.c, input.h)), Some((1, 8)));
}
