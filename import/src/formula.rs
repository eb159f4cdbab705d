//! How a constant that a model computes follows from stored tensors. The exporters leave such computations in a graph:
//! concatenated biases, tables of positions, masks.

use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use crate::fold::{self, OnConstants, Operand};
use crate::graph::{Kind, Operation};
use crate::shapes;

/// Computations inside one another. Deeper ones are not kept.
const MOST_DEPTH: u32 = 256;

/// Elements of the largest tensor in a computation.
const MOST_ELEMENTS: u64 = 1 << 26;

/// A constant as a computation. Two of them are equal if they are the same one.
pub struct Formula {
    dims: Vec<u64>,
    what: What,
    depth: u32,
}

#[derive(Debug)]
enum What {
    /// A stored tensor, by its name, and its numbers if they are known.
    Stored(String, Option<Arc<[f64]>>),
    /// Numbers.
    Numbers(Arc<[f64]>),
    /// An operation, and the kind of its result.
    Operation(Operation, Kind, Vec<Arc<Formula>>),
    /// An operation on constants alone.
    OnConstants(OnConstants, Vec<Arc<Formula>>),
}

impl fmt::Debug for Formula {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Its inputs can be shared, so there can be too many to print.
        write!(f, "Formula of {:?}, {} deep", self.dims, self.depth)
    }
}

impl PartialEq for Formula {
    fn eq(&self, other: &Formula) -> bool {
        std::ptr::eq(self, other)
    }
}

/// A result of computations.
type Numbers = Rc<Vec<f64>>;

impl Formula {
    /// A tensor that is stored with the model.
    pub(crate) fn stored(name: &str, dims: &[u64], numbers: Option<Arc<[f64]>>) -> Arc<Formula> {
        let what = What::Stored(name.to_owned(), numbers);
        Arc::new(Formula { dims: dims.to_vec(), what, depth: 0 })
    }

    /// The name of a tensor that is stored as it is.
    pub(crate) fn name(&self) -> Option<&str> {
        match &self.what {
            What::Stored(name, _) => Some(name),
            _ => None,
        }
    }

    /// Numbers in their order in memory.
    pub(crate) fn numbers(numbers: Arc<[f64]>, dims: &[u64]) -> Arc<Formula> {
        Arc::new(Formula { dims: dims.to_vec(), what: What::Numbers(numbers), depth: 0 })
    }

    /// The result of an operation. None if it is too deep.
    pub(crate) fn applied(
        operation: &Operation,
        kind: Kind,
        inputs: Vec<Arc<Formula>>,
        dims: &[u64],
    ) -> Option<Arc<Formula>> {
        let depth = depth_over(&inputs)?;
        let what = What::Operation(operation.clone(), kind, inputs);
        Some(Arc::new(Formula { dims: dims.to_vec(), what, depth }))
    }

    /// As [`Formula::applied`].
    pub(crate) fn on_constants(
        operation: &OnConstants,
        inputs: Vec<Arc<Formula>>,
        dims: &[u64],
    ) -> Option<Arc<Formula>> {
        let depth = depth_over(&inputs)?;
        let what = What::OnConstants(operation.clone(), inputs);
        Some(Arc::new(Formula { dims: dims.to_vec(), what, depth }))
    }

    /// Dimensions of the result.
    pub fn dims(&self) -> &[u64] {
        &self.dims
    }

    /// The numbers of the result. `stored` gives those of a stored tensor. What is computed is taken off `left`.
    ///
    /// # Errors
    /// What is not computed here, and the errors of `stored`.
    pub(crate) fn evaluate(
        self: &Arc<Formula>,
        stored: &mut dyn FnMut(&str) -> Result<Vec<f64>, String>,
        left: &mut u64,
    ) -> Result<Vec<f64>, String> {
        let mut evaluation = Evaluation { stored, left, done: HashMap::new() };
        Ok(Rc::unwrap_or_clone(evaluation.numbers(self)?))
    }
}

fn depth_over(inputs: &[Arc<Formula>]) -> Option<u32> {
    let deepest = inputs.iter().map(|input| input.depth).max().unwrap_or(0);
    (deepest < MOST_DEPTH).then_some(deepest + 1)
}

struct Evaluation<'a> {
    stored: &'a mut dyn FnMut(&str) -> Result<Vec<f64>, String>,
    left: &'a mut u64,
    /// What several operations share is computed once.
    done: HashMap<*const Formula, Numbers>,
}

impl Evaluation<'_> {
    fn numbers(&mut self, formula: &Arc<Formula>) -> Result<Numbers, String> {
        if let Some(numbers) = self.done.get(&Arc::as_ptr(formula)) {
            return Ok(Rc::clone(numbers));
        }
        let dims = &formula.dims;
        if shapes::count(dims).is_none_or(|count| count > MOST_ELEMENTS) {
            return Err(format!(
                "the model computes {dims:?} elements of it, and at most {MOST_ELEMENTS} are computed"
            ));
        }
        let numbers = match &formula.what {
            What::Stored(name, None) => (self.stored)(name)?,
            What::Stored(_, Some(numbers)) | What::Numbers(numbers) => numbers.to_vec(),
            What::Operation(operation, kind, inputs) => {
                let shapes: Vec<&[u64]> = inputs.iter().map(|input| &input.dims[..]).collect();
                self.take(fold::work(operation, &shapes, dims))?;
                let rule = |operands: &[Operand<'_>]| {
                    fold::evaluate(operation, operands, dims, *kind)
                        .or_else(|| fold::product(operation, operands, dims))
                };
                self.computed(&format!("{operation:?}"), inputs, rule)?
            }
            What::OnConstants(operation, inputs) => {
                self.take(dims.iter().product())?;
                let rule =
                    |operands: &[Operand<'_>]| fold::evaluate_constant(operation, operands, dims);
                self.computed(&format!("{operation:?}"), inputs, rule)?
            }
        };
        if shapes::count(dims) != Some(numbers.len() as u64) {
            return Err(format!("{} numbers are no tensor of {dims:?}", numbers.len()));
        }
        let numbers = Rc::new(numbers);
        self.done.insert(Arc::as_ptr(formula), Rc::clone(&numbers));
        Ok(numbers)
    }

    fn take(&mut self, work: u64) -> Result<(), String> {
        *self.left = self.left.checked_sub(work).ok_or("the model computes too much of it")?;
        Ok(())
    }

    fn computed(
        &mut self,
        operation: &str,
        inputs: &[Arc<Formula>],
        rule: impl Fn(&[Operand<'_>]) -> Option<Vec<f64>>,
    ) -> Result<Vec<f64>, String> {
        let numbers: Vec<Numbers> =
            inputs.iter().map(|input| self.numbers(input)).collect::<Result<_, _>>()?;
        let operands: Vec<Operand<'_>> = inputs
            .iter()
            .zip(&numbers)
            .map(|(input, numbers)| Operand { dims: &input.dims, numbers })
            .collect();
        let name = operation.split([' ', '{', '(']).next().unwrap_or(operation);
        rule(&operands)
            .ok_or_else(|| format!("the model computes it by {name}, which is not done here"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Binary;

    fn evaluated(formula: &Arc<Formula>) -> Result<Vec<f64>, String> {
        let mut stored = |name: &str| match name {
            "w" => Ok(vec![1.0, 2.0, 3.0, 4.0]),
            other => Err(format!("no {other}")),
        };
        formula.evaluate(&mut stored, &mut 1000)
    }

    fn sum(left: &Arc<Formula>, right: &Arc<Formula>) -> Option<Arc<Formula>> {
        let inputs = vec![Arc::clone(left), Arc::clone(right)];
        Formula::applied(&Operation::Binary(Binary::Add), Kind::Float, inputs, &left.dims)
    }

    #[test]
    fn stored_tensors_are_computed_with() {
        let w = Formula::stored("w", &[2, 2], None);
        let turn = Operation::Permute { order: vec![1, 0] };
        let turned = Formula::applied(&turn, Kind::Float, vec![Arc::clone(&w)], &[2, 2]).unwrap();
        assert_eq!(evaluated(&sum(&w, &turned).unwrap()), Ok(vec![2.0, 5.0, 5.0, 8.0]));
        assert_eq!(evaluated(&Formula::stored("v", &[1], None)), Err("no v".to_owned()));
        let short = Formula::stored("w", &[3], None);
        assert_eq!(evaluated(&short), Err("4 numbers are no tensor of [3]".to_owned()));
        let norm = Operation::Normalize;
        let norm = Formula::applied(&norm, Kind::Float, vec![w], &[2, 2]).unwrap();
        let said = evaluated(&norm).unwrap_err();
        assert_eq!(said, "the model computes it by Normalize, which is not done here");
    }

    /// Each sum reads the one before it twice: without sharing there would be 2^200 of them.
    #[test]
    fn what_is_shared_is_computed_once_and_depth_ends() {
        let mut all = Formula::numbers(Arc::from([1.0]), &[1]);
        for _ in 0..200 {
            all = sum(&all, &all).unwrap();
        }
        assert_eq!(evaluated(&all), Ok(vec![2_f64.powi(200)]));
        let deeper = (0..100).try_fold(all, |all, _| sum(&all, &all));
        assert!(deeper.is_none());
        let wide = Formula::numbers(Arc::from([1.0; 1001]), &[1001]);
        let said = evaluated(&sum(&wide, &wide).unwrap()).unwrap_err();
        assert_eq!(said, "the model computes too much of it");
    }
}
