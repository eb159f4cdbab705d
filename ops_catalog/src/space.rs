//! Spaces: sets of op keys, made from definitions.

use std::collections::HashSet;
use std::sync::Arc;

use crate::error::shown;
use crate::key::{OpKey, Shape};
use crate::op::Op;
use crate::size::Variable;
use crate::spec::{Grid, SpaceDef};
use crate::{Catalog, Invalid, NetworkPlan};

/// The most keys of a space, including repeated ones. Measuring this many takes days on any device, so a larger number
/// is a mistake in a grid.
const MAX_KEYS: usize = 100_000;

/// A space as a list of its keys.
#[derive(Debug, Clone)]
pub struct Space {
    /// Its name.
    pub name: String,
    /// Each key once, with its op, in the order of the definition.
    pub entries: Vec<(OpKey, Arc<Op>)>,
}

impl Space {
    /// The keys of some networks, each once, in running order.
    pub fn of_plans(name: &str, plans: &[&NetworkPlan]) -> Space {
        let mut seen = HashSet::new();
        let steps = plans.iter().flat_map(|plan| &plan.steps);
        let new = steps.filter(|step| seen.insert(&step.key));
        let entries = new.map(|step| (step.key.clone(), Arc::clone(&step.op))).collect();
        Space { name: name.to_owned(), entries }
    }
}

impl SpaceDef {
    /// Lists the keys. Each has a possible shape.
    ///
    /// # Errors
    /// Names the grid or key and its problem: an unknown op, an impossible shape, no key at all, or too many.
    pub fn resolve(&self, catalog: &Catalog) -> Result<Space, Invalid> {
        check_space_name(&self.name)?;
        self.entries(catalog)
            .map(|entries| Space { name: self.name.clone(), entries })
            .map_err(|e| e.within(format!("space {}", self.name)))
    }

    fn entries(&self, catalog: &Catalog) -> Result<Vec<(OpKey, Arc<Op>)>, Invalid> {
        let catalog = catalog.with_ops(self.ops.iter().cloned())?;
        let mut keys = Keys::default();
        let own: Vec<&str> = self.ops.iter().map(|def| def.name.as_str()).collect();
        for (index, grid) in self.grids.iter().enumerate() {
            grid.add_to(&mut keys, &own, &catalog)
                .map_err(|e| e.within(format!("grids[{index}]")))?;
        }
        for (index, key) in self.keys.iter().enumerate() {
            catalog
                .op(&key.op)
                .and_then(|op| keys.add(op, key.shape))
                .map_err(|e| e.within(format!("keys[{index}]")))?;
        }
        for name in &self.networks {
            for step in catalog.network(name)?.plan(&catalog)?.steps {
                keys.add(&step.op, step.key.shape)?;
            }
        }
        if keys.entries.is_empty() {
            return Err(Invalid::here("it has no key: give `grids`, `keys` or `networks`"));
        }
        Ok(keys.entries)
    }
}

/// Checks the name of a space, which appears in command lines and URLs.
pub(crate) fn check_space_name(name: &str) -> Result<(), Invalid> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    if (1..=60).contains(&name.len()) && name.bytes().all(plain) {
        return Ok(());
    }
    Err(Invalid::new(
        format!("space name `{}`", shown(name)),
        "a name is letters, digits, `_`, `-` and `.`, at most 60",
    ))
}

/// Keys in the order of their first occurrence, each once.
#[derive(Default)]
struct Keys {
    seen: HashSet<OpKey>,
    entries: Vec<(OpKey, Arc<Op>)>,
    /// Number of added keys, including repeated ones.
    offered: usize,
}

impl Keys {
    fn add(&mut self, op: &Arc<Op>, shape: Shape) -> Result<(), Invalid> {
        self.offered += 1;
        if self.offered > MAX_KEYS {
            return Err(too_many(self.offered));
        }
        op.at(&shape)?;
        let key = op.key(shape);
        if self.seen.insert(key.clone()) {
            self.entries.push((key, Arc::clone(op)));
        }
        Ok(())
    }
}

fn too_many(count: usize) -> Invalid {
    Invalid::here(format!("it has {count} keys or more, and a space has at most {MAX_KEYS}"))
}

impl Grid {
    fn add_to(&self, keys: &mut Keys, own: &[&str], catalog: &Catalog) -> Result<(), Invalid> {
        let given: Vec<&str> = self.ops.iter().map(String::as_str).collect();
        let names = if given.is_empty() { own } else { &given };
        let shapes = self.shapes()?;
        if names.is_empty() || shapes.is_empty() {
            return Err(Invalid::here("it has no key: some list is empty"));
        }
        for name in names {
            let op = catalog.op(name)?;
            for &shape in &shapes {
                keys.add(op, shape)?;
            }
        }
        Ok(())
    }

    fn shapes(&self) -> Result<Vec<Shape>, Invalid> {
        let maps: Vec<(u32, u32)> = match (self.resolution.is_empty(), self.tokens.is_empty()) {
            (false, true) => self.resolution.iter().map(|&r| (r, r)).collect(),
            (true, false) => self.tokens.iter().map(|&l| (l, 1)).collect(),
            _ => return Err(Invalid::here("give one of `resolution` and `tokens`")),
        };
        if self.c_out.iter().any(|size| size.mentions(Variable::COut)) {
            return Err(Invalid::new("c_out", "is given by numbers and multiples of c_in"));
        }
        let count = [self.batch.len(), maps.len(), self.c_in.len(), self.c_out.len()]
            .into_iter()
            .fold(self.stride.len(), usize::saturating_mul);
        if count > MAX_KEYS {
            return Err(too_many(count));
        }
        let mut shapes = Vec::with_capacity(count);
        for &(input_h, input_w) in &maps {
            for &channels_in in &self.c_in {
                for c_out in &self.c_out {
                    for &stride in &self.stride {
                        for &batch in &self.batch {
                            let mut shape = Shape {
                                batch,
                                input_h,
                                input_w,
                                channels_in,
                                channels_out: 1,
                                stride,
                            };
                            shape.channels_out = c_out.at(&shape).map_err(|e| e.within("c_out"))?;
                            shapes.push(shape);
                        }
                    }
                }
            }
        }
        Ok(shapes)
    }
}
