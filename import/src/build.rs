//! A graph while it is read. What is computed from constants alone becomes a constant here, so both readers fold by
//! the same rules.

pub(crate) mod dimensions;
mod positions;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::error::{ImportError, Step, Stop, brief, shown, unsupported};
use crate::fold::{self, MOST_NUMBERS, OnConstants, Operand};
use crate::formula::Formula;
use crate::graph::{Graph, Kind, Node, Operation, Value, ValueId};
use crate::shapes;
use crate::stored::Located;

/// Values of the largest graph that is read.
const MOST_VALUES: usize = 1_000_000;

/// Nodes of the largest graph that is read, after functions are inlined.
pub(crate) const MOST_NODES: usize = 200_000;

/// Numbers of constants that are kept in all, 256 MiB. Those of further constants are treated as unknown.
const MOST_KEPT: usize = 1 << 25;

/// Why an operator is not supported that has no place in a graph.
pub(crate) const ON_CONSTANTS: &str = "it is read only where its inputs are constants";

/// The graph, and what is known beside it.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    graph: Graph,
    /// Values whose dimensions are unknown.
    unknown: HashSet<ValueId>,
    /// Constant matrices that are others transposed.
    transposed: HashMap<ValueId, ValueId>,
    /// Numbers of constants that are kept.
    kept: usize,
    /// The node that is being translated.
    place: String,
    operator: String,
}

impl Builder {
    /// Says which node is being translated.
    pub(crate) fn at(&mut self, place: &str, operator: &str) {
        self.place = shown(place);
        self.operator = shown(operator);
    }

    /// Where the node that is being translated stands, for messages.
    pub(crate) fn here(&self) -> String {
        format!("{} ({})", self.place, self.operator)
    }

    /// The error of a graph in training mode.
    pub(crate) fn training<T>(&self) -> Step<T> {
        let (place, operator) = (self.place.clone(), self.operator.clone());
        Err(ImportError::Training { place, operator }.into())
    }

    fn push(&mut self, value: Value) -> Result<ValueId, ImportError> {
        if self.graph.values.len() >= MOST_VALUES {
            return Err(ImportError::too_large("the graph", format!("{MOST_VALUES} values")));
        }
        if shapes::count(&value.dims).is_none() {
            let what =
                format!("the tensor `{}` with the shape {:?}", shown(&value.name), value.dims);
            return Err(ImportError::too_large(what, "16 dimensions and 2^40 elements"));
        }
        self.graph.values.push(value);
        Ok(self.graph.values.len() - 1)
    }

    /// An input of the model.
    pub(crate) fn input(
        &mut self,
        name: &str,
        dims: Vec<u64>,
        kind: Kind,
    ) -> Result<ValueId, ImportError> {
        let name = name.to_owned();
        let id =
            self.push(Value { name, dims, kind, constant: false, numbers: None, formula: None })?;
        self.graph.inputs.push(id);
        Ok(id)
    }

    /// A constant that is stored with the model. Numbers are only kept if it is small, and if there is one for each
    /// element.
    pub(crate) fn constant(
        &mut self,
        name: &str,
        dims: Vec<u64>,
        kind: Kind,
        numbers: Option<Vec<f64>>,
    ) -> Result<ValueId, ImportError> {
        let numbers = self.kept(&dims, numbers);
        let formula = Some(Formula::stored(name, &dims, numbers.clone()));
        let name = name.to_owned();
        self.push(Value { name, dims, kind, constant: true, numbers, formula })
    }

    /// A constant of the node that is being translated. Without numbers, nothing is known of it.
    pub(crate) fn made(
        &mut self,
        name: &str,
        dims: Vec<u64>,
        kind: Kind,
        numbers: Option<Vec<f64>>,
    ) -> Result<ValueId, ImportError> {
        let numbers = self.kept(&dims, numbers);
        let formula = numbers.clone().map(|numbers| Formula::numbers(numbers, &dims));
        let name = name.to_owned();
        self.push(Value { name, dims, kind, constant: true, numbers, formula })
    }

    fn kept(&mut self, dims: &[u64], numbers: Option<Vec<f64>>) -> Option<Arc<[f64]>> {
        let count = shapes::count(dims).filter(|&n| n <= MOST_NUMBERS);
        let numbers = numbers.filter(|numbers| {
            count == Some(numbers.len() as u64) && self.kept + numbers.len() <= MOST_KEPT
        })?;
        self.kept += numbers.len();
        Some(numbers.into())
    }

    /// Says where a stored tensor is.
    pub(crate) fn locate(&mut self, name: &str, located: Located) {
        self.graph.directory.insert(name.to_owned(), located);
    }

    /// A constant that was made from others.
    fn derived(
        &mut self,
        inputs: &[ValueId],
        dims: Vec<u64>,
        kind: Kind,
        numbers: Option<Vec<f64>>,
        formula: impl FnOnce(Vec<Arc<Formula>>, &[u64]) -> Option<Arc<Formula>>,
    ) -> Result<ValueId, ImportError> {
        let id = self.made(&self.place.clone(), dims, kind, numbers)?;
        if self.graph.values[id].formula.is_none() {
            let formulas = inputs.iter().map(|&input| self.graph.values[input].formula.clone());
            let made = formulas
                .collect::<Option<Vec<_>>>()
                .and_then(|formulas| formula(formulas, &self.graph.values[id].dims));
            self.graph.values[id].formula = made;
        }
        Ok(id)
    }

    /// A scalar of the node that is being translated.
    pub(crate) fn scalar(&mut self, number: f64, kind: Kind) -> Result<ValueId, ImportError> {
        let name = format!("{} {number}", self.place);
        self.made(&name, Vec::new(), kind, Some(vec![number]))
    }

    /// A constant like another, with nothing known about its numbers.
    pub(crate) fn without_numbers(&mut self, id: ValueId) -> Result<ValueId, ImportError> {
        let Value { name, dims, kind, .. } = self.graph.values[id].clone();
        self.made(&name, dims, kind, None)
    }

    /// A value.
    pub(crate) fn value(&self, id: ValueId) -> &Value {
        &self.graph.values[id]
    }

    /// Dimensions of a value.
    pub(crate) fn dims(&self, id: ValueId) -> &[u64] {
        &self.graph.values[id].dims
    }

    /// Number of dimensions of a value.
    pub(crate) fn rank(&self, id: ValueId) -> usize {
        self.dims(id).len()
    }

    /// Whether a value is a constant.
    pub(crate) fn is_constant(&self, id: ValueId) -> bool {
        self.graph.values[id].constant
    }

    /// Whether the dimensions of a value are unknown.
    pub(crate) fn is_unknown(&self, id: ValueId) -> bool {
        self.unknown.contains(&id)
    }

    /// The numbers of a small constant.
    pub(crate) fn numbers(&self, id: ValueId) -> Option<&[f64]> {
        self.graph.values[id].numbers.as_deref()
    }

    /// The only number of a constant.
    pub(crate) fn number(&self, id: ValueId) -> Option<f64> {
        match self.numbers(id)? {
            [number] => Some(*number),
            _ => None,
        }
    }

    /// The constant matrix of which another one is the transposed one.
    pub(crate) fn transposed(&self, id: ValueId) -> Option<ValueId> {
        self.transposed.get(&id).copied()
    }

    /// Gives a value its name in the file.
    pub(crate) fn rename(&mut self, id: ValueId, name: &str) {
        name.clone_into(&mut self.graph.values[id].name);
    }

    /// Corrects the kind of a value, for rules that a format has of its own.
    pub(crate) fn set_kind(&mut self, id: ValueId, kind: Kind) {
        self.graph.values[id].kind = kind;
    }

    /// The node that writes a value.
    pub(crate) fn producer(&self, id: ValueId) -> Option<&Node> {
        // Each node writes a newer value than the one before.
        let at = self.graph.nodes.binary_search_by_key(&id, |node| node.output).ok()?;
        Some(&self.graph.nodes[at])
    }

    /// Whether a choice is the end of a softmax that gives zeros where everything is masked, so that all scores are
    /// minus infinity. ONNX asks for the NaN that the softmax gives there, and core ATen for the scores.
    pub(crate) fn is_safe_softmax(&self, [condition, zeros, softmax]: [ValueId; 3]) -> bool {
        let is = |node: &&Node, name: &str| {
            let own = node.operator.strip_prefix("aten.").unwrap_or(&node.operator);
            own.split('.').next() == Some(name)
        };
        let read = |id: ValueId, name: &str| {
            self.producer(id)
                .filter(|node| is(node, name))
                .and_then(|node| node.inputs.first().copied())
        };
        let scores = self
            .producer(softmax)
            .filter(|node| matches!(node.operation, Operation::Softmax { .. }))
            .and_then(|node| node.inputs.first().copied());
        let mut asked = ["logical_not", "any", "logical_not", "eq"].iter();
        let asked = asked.try_fold(condition, |id, name| read(id, name));
        let masked = read(condition, "IsNaN") == Some(softmax) || asked == scores;
        self.is_constant(zeros) && scores.is_some() && masked
    }

    /// Number of values so far. Values with smaller ids come from earlier nodes.
    pub(crate) fn len(&self) -> usize {
        self.graph.values.len()
    }

    /// Adds an operation that determines the dimensions of its output.
    ///
    /// # Errors
    /// If the inputs do not fit.
    pub(crate) fn apply(&mut self, operation: Operation, inputs: &[ValueId]) -> Step<ValueId> {
        self.apply_to(operation, inputs, None)
    }

    /// Adds an operation. `wanted` are the dimensions of its output, if it does not determine them.
    ///
    /// # Errors
    /// If the inputs or `wanted` do not fit.
    pub(crate) fn apply_to(
        &mut self,
        operation: Operation,
        inputs: &[ValueId],
        wanted: Option<&[u64]>,
    ) -> Step<ValueId> {
        let shapes: Vec<&[u64]> = inputs.iter().map(|&id| self.dims(id)).collect();
        let dims = shapes::output(&operation, &shapes, wanted).map_err(Stop::Malformed)?;
        let float = inputs.iter().any(|&id| self.value(id).kind == Kind::Float);
        let kind = if float { Kind::Float } else { self.value(inputs[0]).kind };
        if inputs.iter().all(|&id| self.is_constant(id)) {
            let numbers = self.folded(inputs, &dims, |operands, dims| {
                fold::evaluate(&operation, operands, dims, kind)
            });
            let formula =
                |formulas, dims: &[u64]| Formula::applied(&operation, kind, formulas, dims);
            let id = self.derived(inputs, dims, kind, numbers, formula)?;
            if operation == (Operation::Permute { order: vec![1, 0] }) {
                self.transposed.insert(id, inputs[0]);
            }
            return Ok(id);
        }
        self.push_node(operation, inputs, dims, kind)
    }

    fn push_node(
        &mut self,
        operation: Operation,
        inputs: &[ValueId],
        dims: Vec<u64>,
        kind: Kind,
    ) -> Step<ValueId> {
        if self.graph.nodes.len() >= MOST_NODES {
            return Err(ImportError::too_large("the graph", format!("{MOST_NODES} nodes")).into());
        }
        let (place, operator) = (self.place.clone(), self.operator.clone());
        let name = place.clone();
        let output =
            self.push(Value { name, dims, kind, constant: false, numbers: None, formula: None })?;
        let inputs = inputs.to_vec();
        self.graph.nodes.push(Node { place, operator, operation, inputs, output });
        Ok(output)
    }

    /// Adds something that is only computed on constants. Otherwise it is not supported.
    ///
    /// # Errors
    /// If the inputs do not fit, or one of them is computed.
    pub(crate) fn on_constants(
        &mut self,
        operation: &OnConstants,
        inputs: &[ValueId],
    ) -> Step<ValueId> {
        let shapes: Vec<(&[u64], Kind)> =
            inputs.iter().map(|&id| (self.dims(id), self.value(id).kind)).collect();
        let (dims, kind) = fold::output(operation, &shapes)?;
        if !inputs.iter().all(|&id| self.is_constant(id)) {
            return unsupported(ON_CONSTANTS);
        }
        let numbers = self.folded(inputs, &dims, |operands, dims| {
            fold::evaluate_constant(operation, operands, dims)
        });
        let formula = |formulas, dims: &[u64]| Formula::on_constants(operation, formulas, dims);
        Ok(self.derived(inputs, dims, kind, numbers, formula)?)
    }

    /// The result of a rule on small constants, if all numbers are known.
    fn folded(
        &self,
        inputs: &[ValueId],
        dims: &[u64],
        rule: impl Fn(&[Operand<'_>], &[u64]) -> Option<Vec<f64>>,
    ) -> Option<Vec<f64>> {
        let count = shapes::count(dims).filter(|&n| n <= MOST_NUMBERS)?;
        if count == 0 {
            return Some(Vec::new());
        }
        let operand = |&id: &ValueId| {
            let value = &self.graph.values[id];
            Some(Operand { dims: &value.dims, numbers: value.numbers.as_deref()? })
        };
        let operands: Vec<Operand<'_>> = inputs.iter().map(operand).collect::<Option<_>>()?;
        rule(&operands, dims)
    }

    /// A node without a translation. What depends on one without dimensions is not translated either. Of constants alone,
    /// it is a constant.
    ///
    /// # Errors
    /// If the graph or the output is too large.
    pub(crate) fn unsupported(
        &mut self,
        inputs: &[ValueId],
        why: String,
        output: Option<(Vec<u64>, Kind)>,
    ) -> Step<ValueId> {
        let why = brief(why);
        let constants = !inputs.is_empty() && inputs.iter().all(|&id| self.is_constant(id));
        match output {
            Some((dims, kind)) if constants => {
                let name = self.place.clone();
                Ok(self.made(&name, dims, kind, None)?)
            }
            Some((dims, kind)) => {
                self.push_node(Operation::Unsupported { why }, inputs, dims, kind)
            }
            None => self.of_unknown_size(Operation::Unsupported { why }, inputs),
        }
    }

    /// A node that reads a value of unknown size. A result of known size lets what reads it be translated.
    ///
    /// # Errors
    /// If the graph or the output is too large.
    pub(crate) fn dependent(
        &mut self,
        inputs: &[ValueId],
        output: Option<(Vec<u64>, Kind)>,
    ) -> Step<ValueId> {
        match output {
            // Sizes and positions are read by their numbers, which are not known.
            Some((dims, Kind::Float)) => {
                self.push_node(Operation::Dependent, inputs, dims, Kind::Float)
            }
            _ => self.of_unknown_size(Operation::Dependent, inputs),
        }
    }

    fn of_unknown_size(&mut self, operation: Operation, inputs: &[ValueId]) -> Step<ValueId> {
        let id = self.push_node(operation, inputs, Vec::new(), Kind::Float)?;
        self.unknown.insert(id);
        Ok(id)
    }

    /// The graph, without what no output depends on.
    pub(crate) fn finish(self, name: Option<String>, outputs: &[ValueId]) -> Graph {
        let Builder { mut graph, .. } = self;
        let mut needed: HashSet<ValueId> = outputs.iter().copied().collect();
        let mut nodes = Vec::new();
        while let Some(node) = graph.nodes.pop() {
            if needed.contains(&node.output) {
                needed.extend(&node.inputs);
                nodes.push(node);
            }
        }
        nodes.reverse();
        needed.extend(&graph.inputs);
        let mut ids = HashMap::new();
        let mut values = Vec::new();
        for (id, value) in graph.values.into_iter().enumerate() {
            if needed.contains(&id) {
                ids.insert(id, values.len());
                values.push(value);
            }
        }
        let moved = |list: &[ValueId]| list.iter().map(|id| ids[id]).collect();
        for node in &mut nodes {
            node.inputs = moved(&node.inputs);
            node.output = ids[&node.output];
        }
        let (inputs, outputs) = (moved(&graph.inputs), moved(outputs));
        Graph { name, values, nodes, inputs, outputs, directory: graph.directory }
    }
}
