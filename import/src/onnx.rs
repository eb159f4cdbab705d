//! ONNX: files to graphs.

mod call;
mod constants;
mod elementwise;
mod moves;
mod norms;
mod products;
mod proto;
mod tensors;
mod windows;

use std::collections::{HashMap, HashSet};
use std::io::{Read, Seek};
use std::path::Path;

use self::call::Call;
use self::proto::{
    Attribute, AttributeValue, Dim, Function, GraphProto, Model, NodeProto, ValueInfo,
};
use self::tensors::Store;
use crate::ReadOptions;
use crate::build::{Builder, MOST_NODES};
use crate::error::{ImportError, Step, Stop, brief, shown};
use crate::foreign::unexported;
use crate::graph::{Graph, Kind, ValueId};
use crate::shapes;
use crate::wire::Wire;

/// Versions of the operator set that are read. The last one is the newest of onnx 1.23.
const OPSETS: std::ops::RangeInclusive<i64> = 11..=28;

/// Functions that call one another.
const MOST_CALLS: usize = 16;

type Result<T> = std::result::Result<T, ImportError>;

/// An attribute's name and value.
type Named<'a> = (&'a str, &'a AttributeValue);

/// Reads a model. `folder` is where its external data are, if it is a file.
pub(crate) fn read<R: Read + Seek>(
    source: R,
    folder: Option<&Path>,
    options: &ReadOptions,
) -> Result<Graph> {
    let mut model = Model::default();
    let mut wire = Wire::new(source)?;
    match model.read(&mut wire) {
        Err(ImportError::Malformed { .. }) if model.ir_version.is_none() => {
            return Err(unrecognized());
        }
        result => result?,
    }
    let graph = match &model.graph {
        Some(graph) => graph,
        None if model.ir_version.is_none() => return Err(unrecognized()),
        None => return Err(ImportError::malformed("the model", "it has no graph")),
    };
    let opset = opset(&model.opsets)?.ok_or_else(|| {
        ImportError::malformed(
            "the model",
            "it does not say which opset of ONNX it uses; a file that was cut off can lack it",
        )
    })?;
    let key = |f: &'_ Function| (f.domain.clone(), f.name.clone(), f.overload.clone());
    let reader = Reader {
        builder: Builder::default(),
        functions: model.functions.iter().map(|f| (key(f), f)).collect(),
        infos: infos(graph),
        symbols: HashMap::new(),
        store: Store::new(folder),
        translated: 0,
    };
    reader.graph(graph, opset, options)
}

fn unrecognized() -> ImportError {
    unexported("it is neither a model in ONNX nor the .pt2 that torch.export.save writes")
}

/// The version of ONNX's own operators.
fn opset(opsets: &[(String, i64)]) -> Result<Option<i64>> {
    let own = opsets.iter().find(|(domain, _)| is_own(domain)).map(|(_, version)| *version);
    match own {
        Some(version) if !OPSETS.contains(&version) => Err(ImportError::Version(format!(
            "it uses opset {version} of ONNX, and opsets {} to {} are read: export it with one of them",
            OPSETS.start(),
            OPSETS.end()
        ))),
        _ => Ok(own),
    }
}

fn is_own(domain: &str) -> bool {
    domain.is_empty() || domain == "ai.onnx"
}

fn infos(graph: &GraphProto) -> HashMap<&str, &ValueInfo> {
    let all = graph.values.iter().chain(&graph.outputs);
    all.map(|info| (info.name.as_str(), info)).collect()
}

struct Reader<'a> {
    builder: Builder,
    functions: HashMap<(String, String, String), &'a Function>,
    /// Types of values that the file has.
    infos: HashMap<&'a str, &'a ValueInfo>,
    /// Sizes of the dimensions that have a name.
    symbols: HashMap<String, u64>,
    store: Store,
    /// Nodes so far, those of functions as often as they are called.
    translated: usize,
}

/// The values of a graph or of a function by name, and where its nodes stand.
#[derive(Default)]
struct Scope<'a> {
    names: HashMap<String, ValueId>,
    /// The place of the function's call, in front of the places of its nodes.
    prefix: String,
    /// Attributes of the call.
    attributes: Vec<Named<'a>>,
    opset: i64,
    calls: usize,
}

impl Scope<'_> {
    fn define(&mut self, name: &str, id: ValueId, place: &str) -> Result<()> {
        match self.names.insert(name.to_owned(), id) {
            None => Ok(()),
            Some(_) => Err(ImportError::malformed(
                place,
                format!("the value `{}` is written twice", shown(name)),
            )),
        }
    }
}

impl<'a> Reader<'a> {
    fn graph(mut self, graph: &'a GraphProto, opset: i64, options: &ReadOptions) -> Result<Graph> {
        let mut scope = Scope { opset, ..Scope::default() };
        for tensor in &graph.initializers {
            let id = self.store.constant(&mut self.builder, &tensor.name, tensor)?;
            scope.define(&tensor.name, id, "the weights")?;
        }
        self.inputs(graph, options, &mut scope)?;
        let outputs: Vec<&str> = graph.outputs.iter().map(|info| info.name.as_str()).collect();
        self.nodes(&graph.nodes, &outputs, &mut scope)?;
        let output = |name: &&str| {
            scope.names.get(*name).copied().ok_or_else(|| {
                let problem = format!("nothing writes the output `{}`", shown(name));
                ImportError::malformed("the graph", problem)
            })
        };
        let outputs: Vec<ValueId> = outputs.iter().map(output).collect::<Result<_>>()?;
        let name = Some(graph.name.clone()).filter(|name| !name.is_empty());
        Ok(self.builder.finish(name, &outputs))
    }

    fn inputs(
        &mut self,
        graph: &GraphProto,
        options: &ReadOptions,
        scope: &mut Scope<'a>,
    ) -> Result<()> {
        // Old files list the weights as inputs, too.
        let is_input = |info: &&ValueInfo| !scope.names.contains_key(&info.name);
        let inputs: Vec<&ValueInfo> = graph.inputs.iter().filter(is_input).collect();
        if inputs.is_empty() && options.input.is_some() {
            return Err(ImportError::Input("the model has no input".to_owned()));
        }
        for (i, info) in inputs.into_iter().enumerate() {
            let given = options.input.as_deref().filter(|_| i == 0);
            let dims = self.input_dims(info, given)?;
            let Some(kind) = info.element.and_then(tensors::kind) else {
                return Err(ImportError::malformed(
                    format!("the input `{}`", shown(&info.name)),
                    "it is no tensor of numbers",
                ));
            };
            let id = self.builder.input(&info.name, dims, kind)?;
            scope.define(&info.name, id, "the inputs")?;
        }
        Ok(())
    }

    fn input_dims(&mut self, info: &ValueInfo, given: Option<&[u64]>) -> Result<Vec<u64>> {
        let dynamic = || ImportError::Dynamic { input: shown(&info.name), shape: written(info) };
        let Some(dims) = &info.dims else {
            return given.map(<[u64]>::to_vec).ok_or_else(dynamic);
        };
        let is_fixed = dims.iter().all(|dim| fixed(dim).is_some());
        let misfit =
            |given: &[u64]| ImportError::misfit(&info.name, &written(info), given, is_fixed);
        if let Some(given) = given {
            if given.len() != dims.len() {
                return Err(misfit(given));
            }
            for (dim, &size) in dims.iter().zip(given) {
                let fits = match dim {
                    Dim::Name(name) => *self.symbols.entry(name.clone()).or_insert(size) == size,
                    _ => fixed(dim).is_none_or(|own| own == size),
                };
                if !fits {
                    return Err(misfit(given));
                }
            }
            return Ok(given.to_vec());
        }
        dims.iter().map(|dim| self.size(dim).ok_or_else(dynamic)).collect()
    }

    /// The size of a dimension, if it is known.
    fn size(&self, dim: &Dim) -> Option<u64> {
        match dim {
            Dim::Name(name) => self.symbols.get(name).copied(),
            _ => fixed(dim),
        }
    }

    /// Translates nodes in their order. `outputs` are read after them.
    fn nodes(
        &mut self,
        nodes: &'a [NodeProto],
        outputs: &[&str],
        scope: &mut Scope<'a>,
    ) -> Result<()> {
        let mut read: HashSet<&str> = outputs.iter().copied().collect();
        read.extend(nodes.iter().flat_map(|node| node.inputs.iter().map(String::as_str)));
        for node in nodes {
            self.translated += 1;
            if self.translated > MOST_NODES {
                return Err(ImportError::too_large("the graph", format!("{MOST_NODES} nodes")));
            }
            self.node(node, nodes, &read, scope)?;
        }
        Ok(())
    }

    fn node(
        &mut self,
        node: &'a NodeProto,
        nodes: &[NodeProto],
        read: &HashSet<&str>,
        scope: &mut Scope<'a>,
    ) -> Result<()> {
        let first = node.outputs.first().map_or("", String::as_str);
        let own = if node.name.is_empty() { first } else { &node.name };
        self.builder.at(&format!("{}{own}", scope.prefix), &node.operator);
        let mut inputs = Vec::new();
        for name in &node.inputs {
            match scope.names.get(name) {
                _ if name.is_empty() => inputs.push(None),
                Some(&id) => inputs.push(Some(id)),
                None => return Err(self.undefined(name, nodes)),
            }
        }
        let before = self.builder.len();
        let results = self.results(node, inputs, read, scope)?;
        let place = self.builder.here();
        for (name, result) in node.outputs.iter().zip(results) {
            let Some(id) = result.filter(|_| !name.is_empty()) else { continue };
            if id >= before && scope.calls == 0 {
                self.builder.rename(id, name);
            }
            scope.define(name, id, &place)?;
        }
        Ok(())
    }

    fn undefined(&self, name: &str, nodes: &[NodeProto]) -> ImportError {
        let later = nodes.iter().any(|node| node.outputs.iter().any(|output| output == name));
        let problem = match later {
            true => {
                "is only written after it is read: the graph has a cycle, or its nodes are out of order"
            }
            false => "is read, and nothing writes it",
        };
        ImportError::malformed(
            self.builder.here(),
            format!("the value `{}` {problem}", shown(name)),
        )
    }

    /// What a node writes, by output. None for an output that nobody reads.
    fn results(
        &mut self,
        node: &'a NodeProto,
        inputs: Vec<Option<ValueId>>,
        read: &HashSet<&str>,
        scope: &Scope<'a>,
    ) -> Result<Vec<Option<ValueId>>> {
        let known: Vec<ValueId> = inputs.iter().flatten().copied().collect();
        if known.iter().any(|&id| self.builder.is_unknown(id)) {
            let dependent = |name: &String| {
                let output = self.stated(name, scope);
                let dependent = self.builder.dependent(&known, output);
                self.located(dependent).map(Some)
            };
            return node.outputs.iter().map(dependent).collect();
        }
        let wanted =
            |i: usize| node.outputs.get(i).is_some_and(|name| read.contains(name.as_str()));
        let (mut results, why) = match self.translate(node, inputs, scope) {
            Ok(results) => (results, "only its first output is read".to_owned()),
            Err(Stop::Unsupported(why)) => (Vec::new(), why),
            Err(Stop::Malformed(problem)) => {
                return Err(ImportError::malformed(self.builder.here(), problem));
            }
            Err(Stop::Fatal(error)) => return Err(error),
        };
        for (i, name) in node.outputs.iter().enumerate().skip(results.len()) {
            let output = self.stated(name, scope);
            let output = output.or_else(|| self.elementwise(&node.operator, &known));
            let result = match wanted(i) {
                true => {
                    let id = self.builder.unsupported(&known, why.clone(), output);
                    Some(self.located(id)?)
                }
                false => None,
            };
            results.push(result);
        }
        Ok(results)
    }

    /// A value that was added, with the place of the node in its error.
    fn located(&self, added: Step<ValueId>) -> Result<ValueId> {
        match added {
            Ok(id) => Ok(id),
            Err(Stop::Fatal(error)) => Err(error),
            Err(Stop::Malformed(problem) | Stop::Unsupported(problem)) => {
                Err(ImportError::malformed(self.builder.here(), problem))
            }
        }
    }

    /// Dimensions and kind of what a node writes that is not translated, and computes element by element.
    fn elementwise(&self, operator: &str, inputs: &[ValueId]) -> Option<(Vec<u64>, Kind)> {
        let kind = match operator {
            "IsNaN" | "IsInf" | "Not" | "And" | "Or" | "Xor" | "Equal" | "Less" | "LessOrEqual"
            | "Greater" | "GreaterOrEqual" => Kind::Boolean,
            "Where" | "Floor" | "Ceil" | "Round" | "Sign" | "Log" | "Mod" | "Selu" | "Celu"
            | "Softsign" | "HardSigmoid" | "Swish" | "ThresholdedRelu" => {
                self.builder.value(*inputs.last()?).kind
            }
            _ => return None,
        };
        let mut dims = inputs.iter().map(|&id| self.builder.dims(id));
        let first = dims.next()?.to_vec();
        Some((dims.try_fold(first, |all, more| shapes::broadcast(&all, more))?, kind))
    }

    /// Dimensions and kind of a value, if the file has them. Values of functions have none.
    fn stated(&self, name: &str, scope: &Scope<'a>) -> Option<(Vec<u64>, Kind)> {
        let info = self.infos.get(name).filter(|_| scope.calls == 0)?;
        let dims = info.dims.as_ref()?.iter().map(|dim| self.size(dim)).collect::<Option<_>>()?;
        Some((dims, info.element.and_then(tensors::kind)?))
    }

    fn translate(
        &mut self,
        node: &'a NodeProto,
        inputs: Vec<Option<ValueId>>,
        scope: &Scope<'a>,
    ) -> std::result::Result<Vec<Option<ValueId>>, Stop> {
        let attributes = resolved(&node.attributes, &scope.attributes);
        let key = (node.domain.clone(), node.operator.clone(), node.overload.clone());
        if let Some(&function) = self.functions.get(&key) {
            return self.call(function, &inputs, attributes, scope);
        }
        if !is_own(&node.domain) {
            let domain = shown(&node.domain);
            return Err(Stop::Unsupported(format!(
                "it is an operator of `{domain}`, and those of ONNX itself are read"
            )));
        }
        let mut call = Call {
            builder: &mut self.builder,
            store: &mut self.store,
            inputs,
            attributes,
            opset: scope.opset,
            outputs: node.outputs.len(),
        };
        Ok(call.translate(&node.operator)?.into_iter().map(Some).collect())
    }

    /// Puts the nodes of a function in the place of its call.
    fn call(
        &mut self,
        function: &'a Function,
        inputs: &[Option<ValueId>],
        attributes: Vec<Named<'a>>,
        scope: &Scope<'a>,
    ) -> std::result::Result<Vec<Option<ValueId>>, Stop> {
        if scope.calls == MOST_CALLS {
            let most = format!("{MOST_CALLS} calls of functions inside one another");
            return Err(ImportError::too_large("the depth of functions", most).into());
        }
        // Calls can have many inputs and outputs, and no nodes.
        self.translated += function.inputs.len() + function.outputs.len();
        let named = |name: &str| attributes.iter().any(|(own, _)| *own == name);
        let defaults = function.defaults.iter().filter(|default| !named(&default.name));
        let defaults: Vec<Named<'a>> = defaults.map(|a| (a.name.as_str(), &a.value)).collect();
        let place = self.builder.here();
        let mut inner = Scope {
            names: HashMap::new(),
            prefix: format!("{place}/"),
            attributes: [attributes, defaults].concat(),
            opset: opset(&function.opsets)?.unwrap_or(scope.opset),
            calls: scope.calls + 1,
        };
        for (name, id) in function.inputs.iter().zip(inputs) {
            if let Some(id) = id {
                inner.define(name, *id, &place)?;
            }
        }
        let outputs: Vec<&str> = function.outputs.iter().map(String::as_str).collect();
        self.nodes(&function.nodes, &outputs, &mut inner)?;
        outputs
            .iter()
            .map(|name| match inner.names.get(*name) {
                Some(&id) => Ok(Some(id)),
                None => {
                    Err(Stop::Malformed(format!("nothing writes its output `{}`", shown(name))))
                }
            })
            .collect()
    }
}

/// Attributes of a node, with the values of those that name an attribute of the enclosing call.
fn resolved<'a>(own: &'a [Attribute], call: &[Named<'a>]) -> Vec<Named<'a>> {
    let value = |attribute: &'a Attribute| {
        let name = attribute.name.as_str();
        if attribute.reference.is_empty() {
            return Some((name, &attribute.value));
        }
        let (_, outer) = call.iter().find(|(outer, _)| *outer == attribute.reference)?;
        Some((name, *outer))
    };
    own.iter().filter_map(value).collect()
}

/// The size of a dimension without a name. Some exporters write 0 or -1 for any size.
fn fixed(dim: &Dim) -> Option<u64> {
    match dim {
        Dim::Number(size) => u64::try_from(*size).ok().filter(|&size| size > 0),
        _ => None,
    }
}

/// The shape of an input as messages show it.
fn written(info: &ValueInfo) -> String {
    let Some(dims) = &info.dims else { return "[...]".to_owned() };
    let size = |dim: &Dim| match (dim, fixed(dim)) {
        (_, Some(size)) => size.to_string(),
        (Dim::Name(name), _) => shown(name),
        _ => "?".to_owned(),
    };
    brief(format!("[{}]", dims.iter().map(size).collect::<Vec<_>>().join(", ")))
}
