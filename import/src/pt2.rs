//! The `.pt2` of `torch.export.save`: archives to graphs.

mod archive;
mod call;
mod constants;
mod elementwise;
mod memory;
mod moves;
mod norms;
mod products;
mod schema;
mod symbols;
mod windows;

use std::collections::{HashMap, HashSet};
use std::io::{Read, Seek};

use self::archive::Archive;
use self::call::{Arg, Call};
use self::memory::Bound;
use self::schema::{Argument, InputSpec, Node, SymInt, SymIntArgument, TensorMeta};
use self::symbols::Symbols;
use crate::ReadOptions;
use crate::build::{Builder, MOST_NODES};
use crate::error::{ImportError, Step, Stop, brief, shown};
use crate::graph::{Graph, Kind, ValueId};

/// The newest version of the JSON that is read.
const NEWEST_SCHEMA: i64 = 8;

/// Graphs inside one another.
const MOST_GRAPHS: usize = 16;

type Result<T> = std::result::Result<T, ImportError>;

/// Reads a model.
pub(crate) fn read<R: Read + Seek>(source: R, options: &ReadOptions) -> Result<Graph> {
    let mut archive = Archive::open(source)?;
    let program = archive.program()?;
    if let Some(version) = program.schema_version.filter(|version| version.major > NEWEST_SCHEMA) {
        return Err(ImportError::Version(format!(
            "it has version {} of the format of torch.export, and versions up to {NEWEST_SCHEMA} are read: write it with an older torch",
            version.major
        )));
    }
    let module = program.graph_module;
    let mut reader = Reader { graphs: vec![&module.graph], ..Reader::default() };
    reader.inputs(&module.signature.input_specs, &mut archive, options)?;
    let specs = &module.signature.output_specs;
    let outputs = specs.iter().filter_map(|spec| spec.user_output.as_ref()).map(|user| &user.arg);
    let outputs: Vec<&str> = outputs.flat_map(names).collect();
    reader.nodes(&module.graph.nodes, &outputs)?;
    let ids: Vec<ValueId> = outputs
        .iter()
        .map(|name| match reader.names.get(*name) {
            Some(bound) => Ok(bound.id),
            None => Err(ImportError::malformed(
                "the outputs",
                format!("nothing writes the value `{}`", shown(name)),
            )),
        })
        .collect::<Result<_>>()?;
    Ok(reader.builder.finish(None, &ids))
}

/// The names of the tensors of an argument.
fn names(argument: &Argument) -> Vec<&str> {
    match argument {
        Argument::Tensor(tensor) => vec![&tensor.name],
        Argument::Tensors(list) => {
            list.iter().filter_map(|t| t.as_tensor.as_ref()).map(|t| t.name.as_str()).collect()
        }
        _ => Vec::new(),
    }
}

#[derive(Default)]
struct Reader<'a> {
    builder: Builder,
    symbols: Symbols,
    /// The graph, and those inside it around the node that is being translated.
    graphs: Vec<&'a schema::Graph>,
    names: HashMap<String, Bound>,
    /// For each memory, how often it was written in place.
    memory: Vec<u32>,
    /// What a constant is now that a slice of it was written in place, and the state of its memory.
    rewritten: HashMap<ValueId, (ValueId, u32)>,
    /// Nodes so far.
    translated: usize,
}

impl<'a> Reader<'a> {
    fn inputs<R: Read + Seek>(
        &mut self,
        specs: &'a [InputSpec],
        archive: &mut Archive<R>,
        options: &ReadOptions,
    ) -> Result<()> {
        let users = specs.iter().filter_map(|spec| spec.user_input.as_ref());
        let users: Vec<&str> = users.flat_map(|user| names(&user.arg)).collect();
        match (users.first(), &options.input) {
            (Some(first), Some(given)) => self.bind_sizes(first, given)?,
            (None, Some(_)) => {
                return Err(ImportError::Input("the model has no input".to_owned()));
            }
            _ => {}
        }
        for spec in specs {
            let stored = match spec {
                InputSpec { parameter: Some(p), .. } => Some((&p.arg.name, &p.parameter_name)),
                InputSpec { buffer: Some(b), .. } => Some((&b.arg.name, &b.buffer_name)),
                InputSpec { tensor_constant: Some(t), .. } => {
                    Some((&t.arg.name, &t.tensor_constant_name))
                }
                _ => None,
            };
            if let Some((name, stored)) = stored {
                let (dims, kind) = self.meta(name)?.ok_or_else(|| self.dynamic(name))?;
                let numbers = archive.numbers(stored)?;
                let id = self.builder.constant(stored, dims, kind, numbers)?;
                if let Some(located) = archive.located(stored) {
                    self.builder.locate(stored, located);
                }
                self.define(name, id, "the inputs")?;
            }
        }
        for name in users {
            let (dims, kind) = self.meta(name)?.ok_or_else(|| self.dynamic(name))?;
            let id = self.builder.input(name, dims, kind)?;
            self.define(name, id, "the inputs")?;
        }
        Ok(())
    }

    /// Gives the sizes of the first input that have a name their numbers.
    fn bind_sizes(&mut self, name: &str, given: &[u64]) -> Result<()> {
        let meta = self.stored_meta(name)?;
        let mut fits = meta.sizes.len() == given.len();
        for (size, &number) in meta.sizes.iter().zip(given) {
            let symbol =
                size.as_expr.as_ref().map(|expression| symbols::name(&expression.expr_str));
            fits &= match (size.as_int, symbol) {
                (Some(own), _) => u64::try_from(own) == Ok(number),
                (None, Some(Some(symbol))) => self.symbols.bind(symbol, number),
                // An expression of other sizes, which is compared below.
                _ => true,
            };
        }
        let all = meta.sizes.iter().map(|size| self.size(size)).collect::<Option<Vec<u64>>>();
        if !fits || all.is_some_and(|all| all != given) {
            let is_fixed = meta.sizes.iter().all(|size| size.as_int.is_some());
            return Err(ImportError::misfit(name, &written(&meta.sizes), given, is_fixed));
        }
        Ok(())
    }

    fn stored_meta(&self, name: &str) -> Result<&'a TensorMeta> {
        let found = self.graphs.iter().rev().find_map(|graph| graph.tensor_values.get(name));
        found.ok_or_else(|| {
            let place = "graph_module.graph.tensor_values";
            ImportError::malformed(place, format!("there is nothing about `{}`", shown(name)))
        })
    }

    /// Dimensions and kind of a tensor. None if a dimension is not known.
    fn meta(&self, name: &str) -> Result<Option<(Vec<u64>, Kind)>> {
        let meta = self.stored_meta(name)?;
        let dims = meta.sizes.iter().map(|size| self.size(size)).collect::<Option<Vec<u64>>>();
        // Complex numbers and floating point of 8 bits.
        let kind = archive::element(meta.dtype).map_or(Kind::Float, |element| element.kind());
        Ok(dims.map(|dims| (dims, kind)))
    }

    fn size(&self, size: &SymInt) -> Option<u64> {
        match (size.as_int, &size.as_expr) {
            (Some(number), _) => u64::try_from(number).ok(),
            (None, Some(expression)) => self.symbols.evaluate(&expression.expr_str),
            _ => None,
        }
    }

    fn dynamic(&self, name: &str) -> ImportError {
        match self.stored_meta(name) {
            Ok(meta) => ImportError::Dynamic { input: shown(name), shape: written(&meta.sizes) },
            Err(error) => error,
        }
    }

    /// Translates nodes in their order. `outputs` are read after them.
    fn nodes(&mut self, nodes: &'a [Node], outputs: &[&str]) -> Result<()> {
        let mut read: HashSet<&str> = outputs.iter().copied().collect();
        read.extend(nodes.iter().flat_map(|n| n.inputs.iter().flat_map(|input| names(&input.arg))));
        for node in nodes {
            self.translated += 1;
            if self.translated > MOST_NODES {
                return Err(ImportError::too_large("the graph", format!("{MOST_NODES} nodes")));
            }
            let outputs: Vec<&str> = node.outputs.iter().flat_map(names).collect();
            let first = outputs.first().copied().unwrap_or("a node without outputs");
            let target = node.target.strip_prefix("torch.ops.").unwrap_or(&node.target);
            self.builder.at(first, target);
            // Checks, and arithmetic on sizes, whose results are among the sizes.
            if !outputs.is_empty() {
                self.node(node, target, &outputs, &read)?;
            }
        }
        Ok(())
    }

    fn node(
        &mut self,
        node: &'a Node,
        target: &str,
        outputs: &[&str],
        read: &HashSet<&str>,
    ) -> Result<()> {
        let before = self.builder.len();
        let place = self.builder.here();
        let mut tensors = Vec::new();
        let resolved = node
            .inputs
            .iter()
            .map(|input| Ok((input.name.as_str(), self.argument(&input.arg, &mut tensors)?)));
        let arguments = resolved.collect::<Step<Vec<_>>>();
        let known: Vec<ValueId> = tensors.iter().map(|bound| bound.id).collect();
        let metas: Vec<Option<(Vec<u64>, Kind)>> =
            outputs.iter().map(|name| self.meta(name)).collect::<Result<_>>()?;
        if known.iter().any(|&id| self.builder.is_unknown(id)) {
            for (name, meta) in outputs.iter().zip(metas) {
                let dependent = self.builder.dependent(&known, meta);
                let id = self.located(dependent)?;
                self.define(name, id, &place)?;
            }
            return Ok(());
        }
        let results = arguments.and_then(|arguments| self.translate(target, arguments, &metas));
        let (results, why) = match results {
            Ok(results) => (results, "only its first output is read".to_owned()),
            Err(Stop::Unsupported(why)) => (Vec::new(), why),
            Err(Stop::Malformed(problem)) => return Err(ImportError::malformed(place, problem)),
            Err(Stop::Fatal(error)) => return Err(error),
        };
        let target_memory = tensors.first().copied();
        for (i, (name, meta)) in outputs.iter().zip(metas).enumerate() {
            let id = match results.get(i) {
                Some(&id) => self.checked(id, before, name, meta)?,
                None if read.contains(name) => self.unsupported(target, &known, &why, meta)?,
                None => continue,
            };
            self.written(
                node,
                target,
                name,
                id,
                target_memory.filter(|_| i == 0 || call::is_view(target)),
            )?;
        }
        Ok(())
    }

    /// A result, whose dimensions have to be those in the file.
    fn checked(
        &mut self,
        id: ValueId,
        before: usize,
        name: &str,
        meta: Option<(Vec<u64>, Kind)>,
    ) -> Result<ValueId> {
        if let Some((dims, kind)) = meta {
            if self.builder.dims(id) != dims {
                let problem =
                    format!("it writes {:?}, and the file says {dims:?}", self.builder.dims(id));
                return Err(ImportError::malformed(self.builder.here(), problem));
            }
            if id >= before {
                self.builder.set_kind(id, kind);
                self.builder.rename(id, name);
            }
        }
        Ok(id)
    }

    fn unsupported(
        &mut self,
        target: &str,
        inputs: &[ValueId],
        why: &str,
        meta: Option<(Vec<u64>, Kind)>,
    ) -> Result<ValueId> {
        if let Some((dims, kind)) = &meta
            && inputs.is_empty()
            && call::is_determined(target)
        {
            let name = self.builder.here();
            return self.builder.made(&name, dims.clone(), *kind, None);
        }
        let added = self.builder.unsupported(inputs, why.to_owned(), meta);
        self.located(added)
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

    /// The value of an argument. Notes which tensors it has.
    fn argument(&mut self, argument: &'a Argument, tensors: &mut Vec<Bound>) -> Step<Arg<'a>> {
        Ok(match argument {
            Argument::Tensor(tensor) => Arg::Tensor(self.tensor(&tensor.name, tensors)?),
            Argument::Tensors(list) => {
                let tensor = |t: &'a schema::OptionalTensor| {
                    t.as_tensor.as_ref().map(|t| self.tensor(&t.name, tensors)).transpose()
                };
                Arg::Tensors(list.iter().map(tensor).collect::<Step<_>>()?)
            }
            Argument::None => Arg::None,
            Argument::Int(number) => Arg::Int(*number),
            Argument::Float(number) => Arg::Float(*number),
            Argument::Bool(truth) => Arg::Bool(*truth),
            Argument::Text(text) => Arg::Text(text),
            Argument::Ints(list) => Arg::Ints(list.clone()),
            Argument::Floats(list) => Arg::Floats(list.clone()),
            Argument::Size(size) => self.named_size(size).map_or(Arg::Unknown, Arg::Int),
            Argument::Sizes(list) => {
                let sizes = list.iter().map(|size| self.named_size(size)).collect::<Option<_>>();
                sizes.map_or(Arg::Unknown, Arg::Ints)
            }
            Argument::Graph(graph) => Arg::Graph(graph),
            Argument::Computed => Arg::Unknown,
            Argument::Other => Arg::Other,
        })
    }

    fn named_size(&self, size: &SymIntArgument) -> Option<i64> {
        let name = match (size.as_int, &size.as_name) {
            (Some(number), _) => return Some(number),
            (None, name) => name.as_ref()?,
        };
        let stored = self.graphs.iter().rev().find_map(|graph| graph.sym_int_values.get(name))?;
        self.size(stored).and_then(|size| i64::try_from(size).ok())
    }

    fn translate(
        &mut self,
        target: &str,
        arguments: Vec<(&'a str, Arg<'a>)>,
        metas: &[Option<(Vec<u64>, Kind)>],
    ) -> Step<Vec<ValueId>> {
        if call::runs_a_graph(target) {
            return self.inlined(&arguments);
        }
        let Some(outputs) = metas.iter().cloned().collect::<Option<Vec<_>>>() else {
            return Err(Stop::Unsupported(
                "its size depends on numbers that the model computes".to_owned(),
            ));
        };
        Call { builder: &mut self.builder, arguments, outputs }.translate(target)
    }

    /// Puts the nodes of a graph in the place of its call: parts of a model under `torch.no_grad()`.
    fn inlined(&mut self, arguments: &[(&'a str, Arg<'a>)]) -> Step<Vec<ValueId>> {
        let at = arguments.iter().position(|(_, arg)| matches!(arg, Arg::Graph(_)));
        let Some((Arg::Graph(graph), operands)) =
            at.map(|at| (&arguments[at].1, &arguments[at + 1..]))
        else {
            return Err(Stop::Malformed("it has no graph".to_owned()));
        };
        if self.graphs.len() == MOST_GRAPHS {
            return Err(
                ImportError::too_large("the depth of graphs", MOST_GRAPHS.to_string()).into()
            );
        }
        let place = self.builder.here();
        let mut names_inside = HashMap::new();
        let inputs = graph.inputs.iter().flat_map(names);
        let operands = operands.iter().filter_map(|(_, arg)| match arg {
            Arg::Tensor(id) => Some(*id),
            _ => None,
        });
        std::mem::swap(&mut self.names, &mut names_inside);
        for (name, id) in inputs.zip(operands) {
            self.define(name, id, &place)?;
        }
        self.graphs.push(graph);
        let outputs: Vec<&str> = graph.outputs.iter().flat_map(names).collect();
        self.nodes(&graph.nodes, &outputs)?;
        self.graphs.pop();
        let ids = outputs.iter().map(|name| match self.names.get(*name) {
            Some(bound) => Ok(bound.id),
            None => Err(Stop::Malformed(format!("nothing writes its output `{}`", shown(name)))),
        });
        let ids = ids.collect::<Step<Vec<ValueId>>>()?;
        self.names = names_inside;
        Ok(ids)
    }
}

/// A shape as messages show it.
fn written(sizes: &[SymInt]) -> String {
    let size = |size: &SymInt| match (size.as_int, &size.as_expr) {
        (Some(number), _) => number.to_string(),
        (None, Some(e)) => shown(symbols::name(&e.expr_str).unwrap_or(&e.expr_str)),
        _ => "?".to_owned(),
    };
    brief(format!("[{}]", sizes.iter().map(size).collect::<Vec<_>>().join(", ")))
}
