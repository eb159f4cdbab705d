//! A graph under construction.

use ops_catalog::Init;

use crate::model::{Attribute, Content, Node, Tensor, Value};
use crate::weights::Weight;

/// An attribute with its name.
pub(crate) type Named = (&'static str, Attribute);

pub(crate) fn int(name: &'static str, value: i64) -> Named {
    (name, Attribute::Int(value))
}

pub(crate) fn float(name: &'static str, value: f64) -> Named {
    (name, Attribute::Float(value as f32))
}

pub(crate) fn text(name: &'static str, value: &'static str) -> Named {
    (name, Attribute::Text(value))
}

pub(crate) fn ints<const N: usize>(name: &'static str, values: [i64; N]) -> Named {
    (name, Attribute::Ints(values.to_vec()))
}

/// Nodes and constants that were added so far. Each name is given once: those of weights have dots, and all others a
/// slash and a number.
#[derive(Default)]
pub(crate) struct Builder {
    pub(crate) nodes: Vec<Node>,
    pub(crate) tensors: Vec<Tensor>,
    /// The step that is being added, as in `layers.3.project`.
    path: String,
}

impl Builder {
    /// Runs `make` with names that begin with `part`.
    pub(crate) fn within<T>(&mut self, part: &str, make: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        if length > 0 {
            self.path.push('.');
        }
        self.path.push_str(part);
        let made = make(self);
        self.path.truncate(length);
        made
    }

    /// Adds an operator with several outputs.
    pub(crate) fn nodes<const N: usize>(
        &mut self,
        operator: &'static str,
        inputs: &[&Value],
        attributes: [Named; N],
        outputs: usize,
    ) -> Vec<Value> {
        let stem = format!("{}/{operator}_{}", self.path, self.nodes.len());
        let outputs: Vec<Value> = match outputs {
            1 => vec![stem.into()],
            _ => (0..outputs).map(|port| format!("{stem}.{port}").into()).collect(),
        };
        self.nodes.push(Node {
            operator,
            inputs: inputs.iter().map(|&value| value.clone()).collect(),
            outputs: outputs.clone(),
            attributes: attributes.to_vec(),
        });
        outputs
    }

    /// Adds an operator with one output.
    pub(crate) fn node<const N: usize>(
        &mut self,
        operator: &'static str,
        inputs: &[&Value],
        attributes: [Named; N],
    ) -> Value {
        self.nodes(operator, inputs, attributes, 1).swap_remove(0)
    }

    /// An operator of one value, without attributes.
    pub(crate) fn unary(&mut self, operator: &'static str, x: &Value) -> Value {
        self.node(operator, &[x], [])
    }

    /// An operator of two values, without attributes.
    pub(crate) fn binary(&mut self, operator: &'static str, x: &Value, y: &Value) -> Value {
        self.node(operator, &[x, y], [])
    }

    /// An operator of two values, over all of `inputs` from the first to the last.
    pub(crate) fn fold(&mut self, operator: &'static str, inputs: &[Value]) -> Value {
        let mut result = inputs[0].clone();
        for input in &inputs[1..] {
            result = self.binary(operator, &result, input);
        }
        result
    }

    /// An operator of a value and a number.
    pub(crate) fn with_number(&mut self, operator: &'static str, x: &Value, number: f64) -> Value {
        let number = self.number(number);
        self.binary(operator, x, &number)
    }

    /// A value with other dimensions, in the same order in memory.
    pub(crate) fn reshape<const N: usize>(&mut self, x: &Value, dims: [i64; N]) -> Value {
        self.reshape_to(x, &dims)
    }

    /// [`Builder::reshape`] to any number of dimensions.
    pub(crate) fn reshape_to(&mut self, x: &Value, dims: &[i64]) -> Value {
        let dims = self.integers(dims);
        self.binary("Reshape", x, &dims)
    }

    /// A value with its dimensions in another order.
    pub(crate) fn transpose<const N: usize>(&mut self, x: &Value, order: [i64; N]) -> Value {
        self.node("Transpose", &[x], [ints("perm", order)])
    }

    /// The elements `start`, `start + step`, ... before `end` along a dimension.
    pub(crate) fn slice(&mut self, x: &Value, axis: i64, start: i64, end: i64, step: i64) -> Value {
        let [starts, ends, axes, steps] =
            [start, end, axis, step].map(|number| self.integers(&[number]));
        self.node("Slice", &[x, &starts, &ends, &axes, &steps], [])
    }

    /// Parts of a value along a dimension.
    pub(crate) fn split(&mut self, x: &Value, axis: i64, lengths: &[i64]) -> Vec<Value> {
        let parts = self.integers(lengths);
        self.nodes("Split", &[x, &parts], [int("axis", axis)], lengths.len())
    }

    fn constant(&mut self, dims: &[i64], content: Content) -> Value {
        let name: Value = format!("{}/constant_{}", self.path, self.tensors.len()).into();
        self.tensors.push(Tensor { name: name.clone(), dims: dims.to_vec(), content });
        name
    }

    /// A list of integers.
    pub(crate) fn integers(&mut self, values: &[i64]) -> Value {
        let dims = [values.len() as i64];
        let values = values.to_vec();
        self.constant(&dims, Content::Ints(Box::new(move |index| values[index as usize])))
    }

    /// One integer, without dimensions.
    pub(crate) fn index(&mut self, value: i64) -> Value {
        self.constant(&[], Content::Ints(Box::new(move |_| value)))
    }

    /// Indices: `make` of the place of each in row-major order.
    pub(crate) fn indices(&mut self, dims: &[i64], make: impl Fn(i64) -> i64 + 'static) -> Value {
        self.constant(dims, Content::Ints(Box::new(make)))
    }

    /// A number, without dimensions.
    pub(crate) fn number(&mut self, value: f64) -> Value {
        self.constant(&[], Content::Floats(Box::new(move |_| value as f32)))
    }

    /// Numbers: `make` of the place of each in row-major order.
    pub(crate) fn numbers(&mut self, dims: &[i64], make: impl Fn(i64) -> f32 + 'static) -> Value {
        self.constant(dims, Content::Floats(Box::new(make)))
    }

    fn asked(&self, name: &str, dims: &[i64], init: Init) -> Weight {
        Weight { name: format!("{}.{name}", self.path), dims: dims.to_vec(), init }
    }

    fn add_weight(&mut self, dims: &[i64], content: Content, name: &str) -> Value {
        let name: Value = name.into();
        self.tensors.push(Tensor { name: name.clone(), dims: dims.to_vec(), content });
        name
    }

    /// A weight.
    pub(crate) fn weight(&mut self, name: &str, dims: &[i64], init: Init) -> Value {
        self.viewed(name, dims, init, dims)
    }

    /// A weight, seen with other dimensions.
    pub(crate) fn viewed(&mut self, name: &str, dims: &[i64], init: Init, seen: &[i64]) -> Value {
        let weight = self.asked(name, dims, init);
        let name = weight.name.clone();
        self.add_weight(seen, Content::Weight(weight), &name)
    }

    /// The transpose of a weight of two dimensions.
    pub(crate) fn transposed(
        &mut self,
        name: &str,
        [rows, columns]: [i64; 2],
        init: Init,
    ) -> Value {
        let weight = self.asked(name, &[rows, columns], init);
        let name = weight.name.clone();
        self.add_weight(&[columns, rows], Content::Transposed(weight), &name)
    }
}
