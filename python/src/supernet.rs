//! `Table.latency_tensor`: the latencies of a supernet's choices, for differentiable search.

use std::sync::Arc;

use ops_catalog::{
    Catalog, Input, Invalid, LayerSpec, Network, NetworkSpec, NodeSpec, Op, OpKey, Shape,
    TensorShape, text,
};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyDict, PyString};

use crate::errors::{self, Class};
use crate::json;
use crate::prediction::ms;
use crate::table::{self, Table};

/// A choice of a layer, as the user wrote it.
enum Written {
    /// An op at a shape.
    Key(String),
    /// An op whose shape follows from the layers before it.
    Layer(NodeSpec),
    /// No op: the layer is left out.
    Nothing,
}

/// An op at a shape; none for a layer that is left out.
type Choice = Option<(Arc<Op>, Shape)>;

impl Written {
    fn read(choice: &Bound<'_, PyAny>, place: &str) -> PyResult<Written> {
        if choice.is_none() {
            return Ok(Written::Nothing);
        }
        if let Ok(key) = choice.cast::<PyString>() {
            return Ok(Written::Key(key.to_str()?.to_owned()));
        }
        if choice.is_instance_of::<PyDict>() {
            let node = text::read_json(&json::from_python(choice)?);
            return node.map(Written::Layer).map_err(|problem: Invalid| {
                Class::NetworkError.with(choice.py(), problem.within(place))
            });
        }
        Err(PyTypeError::new_err(format!(
            "{place}: a choice is an op key, a dict such as {{\"op\": ..., \"c_out\": ..., \"stride\": ...}}, or \
             None for no op"
        )))
    }
}

/// The choices of each layer.
fn read(choices: &Bound<'_, PyAny>) -> PyResult<Vec<Vec<Written>>> {
    let mut layers = Vec::new();
    for (layer, written) in choices.try_iter()?.enumerate() {
        let written = written?.try_iter()?.enumerate();
        let read = written.map(|(place, choice)| Written::read(&choice?, &at(layer, place)));
        let read = read.collect::<PyResult<Vec<Written>>>()?;
        if read.is_empty() {
            let problem = format!("choices[{layer}]: it is empty; None stands for no op");
            return Err(Class::NetworkError.with(choices.py(), problem));
        }
        layers.push(read);
    }
    if layers.is_empty() {
        return Err(Class::NetworkError.with(choices.py(), "choices: there is no layer"));
    }
    Ok(layers)
}

fn at(layer: usize, place: usize) -> String {
    format!("choices[{layer}][{place}]")
}

/// The layers so far.
struct Walk<'a> {
    catalog: &'a Catalog,
    /// What the first layer gets. Without it each choice has to be an op key.
    input: Option<Input>,
    /// One op of each layer that has any.
    before: Vec<LayerSpec>,
    /// What the next layer gets.
    output: Option<TensorShape>,
}

impl Walk<'_> {
    fn new(catalog: &Catalog, input: Option<Input>) -> Walk<'_> {
        let output = input.map(|Input { n, c, h, w }| TensorShape::Map { n, c, h, w });
        Walk { catalog, input, before: vec![], output }
    }

    /// The choices of the next layer. All of them have outputs of one shape.
    fn layer(&mut self, layer: usize, written: &[Written]) -> Result<Vec<Choice>, Invalid> {
        let mut node = None;
        let mut outputs = Vec::new();
        let mut choices = Vec::new();
        for (place, choice) in written.iter().enumerate() {
            let (choice, output) = match choice {
                Written::Nothing => (None, self.output),
                Written::Key(key) => {
                    self.key(key, &mut node).map_err(|e| e.within(at(layer, place)))?
                }
                Written::Layer(spec) => {
                    node = Some(spec.clone());
                    self.op(spec).map_err(|e| e.within(at(layer, place)))?
                }
            };
            choices.push(choice);
            outputs.push(output);
        }
        self.before.extend(node.map(LayerSpec::Full));
        self.output = same(layer, &outputs)?;
        Ok(choices)
    }

    /// The op of a key, and the node that it is of the layers so far.
    fn key(
        &self,
        text: &str,
        node: &mut Option<NodeSpec>,
    ) -> Result<(Choice, Option<TensorShape>), Invalid> {
        let key: OpKey = text.parse()?;
        let op = self.catalog.op(&key.op)?;
        if self.input.is_none() {
            return Ok((Some((Arc::clone(op), key.shape)), Some(op.at(&key.shape)?.output)));
        }
        let spec = NodeSpec {
            op: Some(key.op.clone()),
            c_out: Some(key.shape.channels_out),
            stride: Some(key.shape.stride),
            ..NodeSpec::default()
        };
        let (choice, output) = self.op(&spec)?;
        if let Some((op, shape)) = &choice
            && *shape != key.shape
        {
            let problem =
                format!("{key} does not fit: after these layers it is {}", op.key(*shape));
            return Err(Invalid::new("", problem));
        }
        *node = Some(spec);
        Ok((choice, output))
    }

    /// The op that stands behind the layers so far, and its output.
    fn op(&self, node: &NodeSpec) -> Result<(Choice, Option<TensorShape>), Invalid> {
        let Some(input) = self.input else {
            return Err(Invalid::new("", "its shape follows from the input: give `input`"));
        };
        let mut layers = self.before.clone();
        layers.push(LayerSpec::Full(node.clone()));
        let spec =
            NetworkSpec { input: Some(input), layers: Some(layers), ..NetworkSpec::default() };
        let mut plan = Network::new(&spec, self.catalog)?.plan(self.catalog)?;
        let step = plan.steps.pop().expect("a network has at least the layer that was added");
        Ok((Some((step.op, step.key.shape)), Some(step.plan.output)))
    }
}

/// The shape that all choices of a layer leave to the next one; none where a choice says nothing of shapes.
fn same(layer: usize, outputs: &[Option<TensorShape>]) -> Result<Option<TensorShape>, Invalid> {
    let mut known =
        outputs.iter().enumerate().filter_map(|(place, output)| Some((place, (*output)?)));
    let Some((first, wanted)) = known.next() else { return Ok(None) };
    match known.find(|(_, output)| *output != wanted) {
        None => Ok(Some(wanted)),
        Some((place, output)) => Err(Invalid::new(
            at(layer, place),
            format!(
                "its output is {output}, and that of {} is {wanted}: the next layer needs one shape",
                at(layer, first)
            ),
        )),
    }
}

/// `Table.latency_tensor`.
pub(crate) fn tensor<'py>(
    table: &Table,
    choices: &Bound<'py, PyAny>,
    input: Option<(u32, u32, u32, u32)>,
    weight_bytes: Option<f64>,
    missing: &str,
) -> PyResult<Bound<'py, PyAny>> {
    let py = choices.py();
    let predictor = table.predictor(table::missing(py, missing)?);
    if weight_bytes.is_some_and(|bytes| !(0.0..=1e15).contains(&bytes)) {
        return Err(Class::UsageError.with(py, "weight_bytes: it is a number of bytes"));
    }
    let written = read(choices)?;
    let input = input.map(|(n, c, h, w)| Input { n, c, h, w });
    let layers = py.detach(|| {
        let mut walk = Walk::new(table.content().catalog(), input);
        let layers = written.iter().enumerate().map(|(place, layer)| walk.layer(place, layer));
        layers.collect::<Result<Vec<Vec<Choice>>, Invalid>>()
    });
    let layers = layers.map_err(|problem| Class::NetworkError.with(py, problem))?;
    let element_bytes = table.content().table().run_config.dtype.bytes();
    let mean = || mean_weight_bytes(&layers, element_bytes);
    let weight_bytes = match weight_bytes {
        Some(bytes) => bytes,
        None => mean().map_err(|problem| Class::NetworkError.with(py, problem))?,
    };
    let ops: Vec<(&Op, Shape)> =
        layers.iter().flatten().flatten().map(|(op, shape)| (op.as_ref(), *shape)).collect();
    let shares = py.detach(|| predictor.shares(&ops, weight_bytes));
    let shares = shares.map_err(|missing| errors::of_missing(py, missing))?;
    let width = layers.iter().map(Vec::len).max().unwrap_or(0);
    let (numbers, mask) = padded(&layers, &shares, width);
    let made = py.import("latlas._support")?.getattr("latencies")?;
    made.call1((PyByteArray::new(py, &numbers), PyByteArray::new(py, &mask), (layers.len(), width)))
}

/// Bytes of the weights of a network of the supernet, in the mean over all of its networks.
fn mean_weight_bytes(layers: &[Vec<Choice>], element_bytes: u64) -> Result<f64, Invalid> {
    let mut sum = 0.0;
    for layer in layers {
        for (op, shape) in layer.iter().flatten() {
            sum += op.at(shape)?.cost.weight_bytes(element_bytes) as f64 / layer.len() as f64;
        }
    }
    Ok(sum)
}

/// Milliseconds as the bytes of 32-bit floats, with NaN behind the choices of a layer, and the mask of the choices.
fn padded(layers: &[Vec<Choice>], shares: &[f64], width: usize) -> (Vec<u8>, Vec<u8>) {
    let mut shares = shares.iter();
    let (mut numbers, mut mask) = (Vec::new(), Vec::new());
    for layer in layers {
        for place in 0..width {
            let share = match layer.get(place) {
                None => f64::NAN,
                Some(None) => 0.0,
                Some(Some(_)) => *shares.next().expect("there is one for each op"),
            };
            numbers.extend((ms(share) as f32).to_ne_bytes());
            mask.push(u8::from(place < layer.len()));
        }
    }
    (numbers, mask)
}
