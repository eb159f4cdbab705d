//! Values that are changed in place, and names that share memory.

use super::Reader;
use super::call;
use super::names;
use super::schema::{Argument, Node};
use crate::build::dimensions;
use crate::error::{ImportError, Step, Stop, shown};
use crate::graph::ValueId;

type Result<T> = std::result::Result<T, ImportError>;

/// What a name stands for. In these graphs values are changed in place, and several names can share memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bound {
    pub(super) id: ValueId,
    /// The memory, by index into [`Reader::memory`].
    memory: usize,
    /// The state of the memory when the name was bound.
    state: u32,
    /// The slice of another value of the same memory that this one is.
    part: Option<Part>,
}

/// Where a slice is in a value: from an element of a dimension on.
#[derive(Debug, Clone, Copy)]
struct Part {
    of: ValueId,
    axis: usize,
    start: u64,
}

impl Reader<'_> {
    pub(super) fn define(&mut self, name: &str, id: ValueId, place: &str) -> Result<()> {
        self.memory.push(0);
        let bound = Bound { id, memory: self.memory.len() - 1, state: 0, part: None };
        self.bind(name, bound, place)
    }

    pub(super) fn bind(&mut self, name: &str, bound: Bound, place: &str) -> Result<()> {
        match self.names.insert(name.to_owned(), bound) {
            None => Ok(()),
            Some(_) => Err(ImportError::malformed(
                place,
                format!("the value `{}` is written twice", shown(name)),
            )),
        }
    }

    /// Binds the name of an output, which may share memory with an input, or be one that is changed in place.
    pub(super) fn written(
        &mut self,
        node: &Node,
        target: &str,
        name: &str,
        id: ValueId,
        source: Option<Bound>,
    ) -> Result<()> {
        let place = self.builder.here();
        let Some(source) = source else { return self.define(name, id, &place) };
        if call::is_in_place(target) && id != source.id {
            let state = self.memory[source.memory] + 1;
            self.memory[source.memory] = state;
            let bound = Bound { id, state, ..source };
            if let Some(part) = source.part.filter(|_| source.state + 1 == state) {
                self.rewrite(part, id, state)?;
            }
            // The name of the input now stands for the result. Other names of its memory are outdated.
            let own = node.inputs.iter().flat_map(|input| names(&input.arg)).next();
            if let Some(own) = own {
                self.names.insert(own.to_owned(), bound);
            }
            return self.bind(name, bound, &place);
        }
        if call::is_view(target) || call::is_in_place(target) {
            let part = self.part(node, target, source);
            return self.bind(name, Bound { id, part, ..source }, &place);
        }
        self.define(name, id, &place)
    }

    /// The part of its first argument that a slice is, if both are constants.
    fn part(&self, node: &Node, target: &str, source: Bound) -> Option<Part> {
        if target != "aten.slice.Tensor" || !self.builder.is_constant(source.id) {
            return None;
        }
        let int = |name: &str, default: i64| {
            let found = node.inputs.iter().find(|input| input.name == name);
            match found.map(|input| &input.arg) {
                None | Some(Argument::None) => Some(default),
                Some(Argument::Int(number)) => Some(*number),
                Some(Argument::Size(size)) => self.named_size(size),
                Some(_) => None,
            }
        };
        let rank = self.builder.rank(source.id);
        let axis = dimensions::axis(int("dim", 0)?, rank).ok()?;
        let start = u64::try_from(int("start", 0)?).ok()?;
        (int("step", 1)? == 1).then_some(Part { of: source.id, axis, start })
    }

    /// Puts a slice that was written in place into the constant whose part it is.
    fn rewrite(&mut self, part: Part, slice: ValueId, state: u32) -> Result<()> {
        let Part { of, axis, start } = part;
        let whole = match self.rewritten.get(&of) {
            Some(&(newer, at)) if at + 1 == state => newer,
            None if state == 1 => of,
            _ => return Ok(()),
        };
        if !self.builder.is_constant(slice) {
            return Ok(());
        }
        let end = start + self.builder.dims(slice)[axis];
        let small = |position: u64| i64::try_from(position).unwrap_or(i64::MAX);
        let length = self.builder.dims(whole)[axis];
        let parts = [(0, start), (end, length)].map(|(from, to)| (small(from), small(to), 1));
        let [before, after] = parts.map(|range| self.builder.slice(whole, axis, range));
        let parts = [self.located(before)?, slice, self.located(after)?];
        let parts = parts.into_iter().filter(|&id| self.builder.dims(id)[axis] > 0);
        let parts: Vec<ValueId> = parts.collect();
        let joined = self.builder.concat(&parts, axis);
        let joined = self.located(joined)?;
        self.rewritten.insert(of, (joined, state));
        Ok(())
    }

    /// The value of a name. One whose memory was changed under another name has no known content.
    pub(super) fn tensor(&mut self, name: &str, tensors: &mut Vec<Bound>) -> Step<ValueId> {
        let Some(&bound) = self.names.get(name) else {
            return Err(Stop::Malformed(format!(
                "the value `{}` is read, and nothing writes it before",
                shown(name)
            )));
        };
        let mut bound = bound;
        if self.memory[bound.memory] != bound.state && !self.builder.is_unknown(bound.id) {
            if !self.builder.is_constant(bound.id) {
                tensors.push(bound);
                return Err(Stop::Unsupported(format!(
                    "`{}` was changed in place through another view of its memory: export a model without such assignments",
                    shown(name)
                )));
            }
            let state = self.memory[bound.memory];
            bound.id = match self.rewritten.get(&bound.id) {
                Some(&(newer, at)) if at == state => newer,
                _ => self.builder.without_numbers(bound.id)?,
            };
            bound.state = state;
        }
        tensors.push(bound);
        Ok(bound.id)
    }
}
