//! The ops of a space at the shapes that its networks have.

use std::collections::HashMap;
use std::sync::Arc;

use super::run::{Call, Problem};
use crate::key::{OpKey, Shape};
use crate::network::{key_shape, merged};
use crate::op::Op;
use crate::primitive::Cost;
use crate::tensor::TensorShape;
use crate::{Catalog, Invalid};

/// The most keys of a space of architectures: measuring more would take days on any device.
const MAX_KEYS: usize = 100_000;

/// The most ops that are looked at while a space is compiled, which bounds the time.
const MAX_CALLS: usize = 5_000_000;

/// An op at a shape, which some network of the space has.
#[derive(Debug, Clone)]
pub struct SpaceKey {
    /// The op.
    pub op: Arc<Op>,
    /// The index of the op among those of the space.
    pub op_index: u32,
    /// The shape.
    pub shape: Shape,
    /// Its cost.
    pub cost: Cost,
    output: TensorShape,
}

impl SpaceKey {
    /// The key of its row in a table.
    pub fn key(&self) -> OpKey {
        self.op.key(self.shape)
    }
}

/// The keys that were met so far.
#[derive(Debug)]
pub(super) struct Ops {
    catalog: Catalog,
    pub(super) ops: Vec<Arc<Op>>,
    by_name: HashMap<String, u32>,
    pub(super) keys: Vec<SpaceKey>,
    by_shape: HashMap<(u32, Shape), Result<u32, Invalid>>,
    calls: usize,
}

/// What an op of a network costs: its merges, and itself.
pub(super) struct Planned {
    pub(super) merges: Vec<u32>,
    pub(super) key: u32,
    pub(super) output: TensorShape,
}

impl Ops {
    pub(super) fn new(catalog: Catalog) -> Ops {
        Ops {
            catalog,
            ops: vec![],
            by_name: HashMap::new(),
            keys: vec![],
            by_shape: HashMap::new(),
            calls: 0,
        }
    }

    pub(super) fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The keys of an op and of the merges of its inputs.
    pub(super) fn plan(&mut self, call: &Call<'_>) -> Result<Planned, Problem> {
        self.calls += 1;
        if self.calls > MAX_CALLS {
            let problem = "it is too large to be compiled: give choices that decide shapes fewer values, or \
                           make it two spaces";
            return Err(Problem::Definition(Invalid::new("", problem)));
        }
        let shapes: Vec<TensorShape> = call.inputs.iter().map(|wire| wire.shape).collect();
        let op = self.op(call.op)?;
        let (merging, input): (Vec<(Arc<Op>, Shape)>, TensorShape) = {
            let merged = merged(call.merge, &shapes, &self.catalog).map_err(Problem::Impossible)?;
            let steps = merged.steps().map(|(op, shape)| (Arc::clone(op), shape));
            (steps.collect(), merged.shape)
        };
        let mut merges = Vec::with_capacity(merging.len());
        for (op, shape) in merging {
            let index = self.op(op.name())?;
            merges.push(self.key(index, shape)?);
        }
        let shape = key_shape(&self.ops[op as usize], input, call.c_out, call.stride);
        let key = self.key(op, shape.map_err(Problem::Impossible)?)?;
        Ok(Planned { merges, key, output: self.keys[key as usize].output })
    }

    /// The output of an op, without a note of it.
    pub(super) fn output(&self, call: &Call<'_>) -> Result<TensorShape, Problem> {
        let shapes: Vec<TensorShape> = call.inputs.iter().map(|wire| wire.shape).collect();
        let op = self.catalog.op(call.op).map_err(Problem::Definition)?;
        let planned = || {
            let input = merged(call.merge, &shapes, &self.catalog)?.shape;
            let shape = key_shape(op, input, call.c_out, call.stride)?;
            let index = self.by_name.get(op.name()).copied();
            match index.and_then(|index| self.by_shape.get(&(index, shape))) {
                Some(Ok(key)) => Ok(self.keys[*key as usize].output),
                _ => op.at(&shape).map(|plan| plan.output),
            }
        };
        planned().map_err(Problem::Impossible)
    }

    /// The number of a key.
    pub(super) fn number(&self, op: &Op, shape: &Shape) -> Option<u32> {
        let index = self.by_name.get(op.name())?;
        self.by_shape.get(&(*index, *shape))?.as_ref().ok().copied()
    }

    /// Forgets keys that are not used, and returns the new number of each key.
    pub(super) fn retain(&mut self, used: &[bool]) -> Vec<u32> {
        let mut next = 0;
        let numbers: Vec<u32> = used
            .iter()
            .map(|&used| {
                next += u32::from(used);
                next.saturating_sub(1)
            })
            .collect();
        let mut flags = used.iter();
        self.keys.retain(|_| flags.next().copied().unwrap_or(false));
        self.by_shape.retain(|_, key| match key {
            Ok(key) if used[*key as usize] => {
                *key = numbers[*key as usize];
                true
            }
            _ => false,
        });
        numbers
    }

    /// The index of an op by name or alias.
    fn op(&mut self, name: &str) -> Result<u32, Problem> {
        if let Some(&index) = self.by_name.get(name) {
            return Ok(index);
        }
        let op = Arc::clone(self.catalog.op(name).map_err(Problem::Definition)?);
        let index = match self.by_name.get(op.name()) {
            Some(&index) => index,
            None => {
                self.ops.push(Arc::clone(&op));
                index(self.ops.len() - 1)
            }
        };
        self.by_name.insert(op.name().to_owned(), index);
        self.by_name.insert(name.to_owned(), index);
        Ok(index)
    }

    fn key(&mut self, op_index: u32, shape: Shape) -> Result<u32, Problem> {
        if let Some(known) = self.by_shape.get(&(op_index, shape)) {
            return known.clone().map_err(Problem::Impossible);
        }
        if self.keys.len() >= MAX_KEYS || self.by_shape.len() >= 4 * MAX_KEYS {
            let problem = format!("its networks have more than {MAX_KEYS} op keys together");
            return Err(Problem::Definition(Invalid::new("", problem)));
        }
        let op = Arc::clone(&self.ops[op_index as usize]);
        let found = op.at(&shape).map(|plan| {
            let (output, cost) = (plan.output, plan.cost);
            self.keys.push(SpaceKey { op, op_index, shape, cost, output });
            index(self.keys.len() - 1)
        });
        self.by_shape.insert((op_index, shape), found.clone());
        found.map_err(Problem::Impossible)
    }
}

fn index(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
