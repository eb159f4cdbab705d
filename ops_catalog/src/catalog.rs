//! The catalog: ops by name, and the built-in spaces and networks.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::shown;
use crate::op::{Op, OpDef};
use crate::spec::{NetworkSpec, SpaceDef};
use crate::{Invalid, text};

include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

/// Named ops, spaces and networks.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    ops: BTreeMap<String, Arc<Op>>,
    aliases: BTreeMap<String, String>,
    spaces: BTreeMap<String, SpaceDef>,
    networks: BTreeMap<String, NetworkSpec>,
}

static BUILTIN: LazyLock<Catalog> =
    LazyLock::new(|| load().expect("the embedded catalog is checked by this crate's tests"));

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OpsFile {
    ops: Vec<OpDef>,
}

fn load() -> Result<Catalog, Invalid> {
    fn parse<T: DeserializeOwned>(file: &str, text: &str) -> Result<T, Invalid> {
        text::read(text).map_err(|e| e.within(file))
    }
    let twice = |file: &str, name: &str| Invalid::new(file, format!("`{name}` is there already"));
    let mut catalog = Catalog::default();
    for (file, text) in OPS {
        let OpsFile { ops } = parse(file, text)?;
        catalog = catalog.with_ops(ops).map_err(|e| e.within(file))?;
    }
    for (file, text) in NETWORKS {
        let spec: NetworkSpec = parse(file, text)?;
        let name = spec.name.clone().ok_or_else(|| Invalid::new(*file, "`name` is missing"))?;
        if catalog.networks.insert(name.clone(), spec).is_some() {
            return Err(twice(file, &name));
        }
    }
    for (file, text) in SPACES {
        let def: SpaceDef = parse(file, text)?;
        let name = def.name.clone();
        if catalog.spaces.insert(name.clone(), def).is_some() {
            return Err(twice(file, &name));
        }
    }
    Ok(catalog)
}

impl Catalog {
    /// The catalog that is compiled in.
    pub fn builtin() -> &'static Catalog {
        &BUILTIN
    }

    /// This catalog with more ops. An op that it already has, with the same digest, keeps its prose and usual stride;
    /// only new aliases are added.
    ///
    /// # Errors
    /// When a definition is not valid, or its name or an alias is taken by an op with another digest. Rows are found by
    /// name, so a name means one op.
    pub fn with_ops(&self, defs: impl IntoIterator<Item = OpDef>) -> Result<Catalog, Invalid> {
        let mut catalog = self.clone();
        for def in defs {
            let op = Op::new(def)?;
            let name = op.name().to_owned();
            catalog.add(op).map_err(|e| e.within(format!("op {name}")))?;
        }
        Ok(catalog)
    }

    fn add(&mut self, op: Op) -> Result<(), Invalid> {
        let name = op.name();
        if let Some(existing) = self.ops.get(name)
            && existing.digest() != op.digest()
        {
            return Err(Invalid::here(format!(
                "the name is taken by another definition (digest {}, and this one has {}): give \
                 yours another name",
                existing.digest(),
                op.digest()
            )));
        }
        if let Some(owner) = self.aliases.get(name) {
            return Err(Invalid::here(format!("its name is an alias of {owner}")));
        }
        for alias in &op.def().aliases {
            let owner = self.aliases.get(alias).filter(|owner| *owner != name);
            if let Some(owner) = owner.or_else(|| self.ops.get_key_value(alias).map(|(op, _)| op)) {
                return Err(Invalid::here(format!("its alias {alias} is taken by {owner}")));
            }
            if alias == name {
                return Err(Invalid::here("its alias is its own name"));
            }
        }
        for alias in &op.def().aliases {
            self.aliases.insert(alias.clone(), name.to_owned());
        }
        self.ops.entry(name.to_owned()).or_insert_with(|| Arc::new(op));
        Ok(())
    }

    /// An op by name or alias.
    ///
    /// # Errors
    /// When there is no such op; the message has the closest names.
    pub fn op(&self, name: &str) -> Result<&Arc<Op>, Invalid> {
        let canonical = self.aliases.get(name).map_or(name, String::as_str);
        self.ops.get(canonical).ok_or_else(|| {
            let close = closest(name, self.ops.keys().chain(self.aliases.keys()));
            Invalid::new(
                format!("op {}", shown(name)),
                format!(
                    "there is no such op; the closest names are {close}; an op of your own is defined in a \
                     file: docs/catalog.md#adding-an-op"
                ),
            )
        })
    }

    /// All ops, by name.
    pub fn ops(&self) -> impl Iterator<Item = &Arc<Op>> {
        self.ops.values()
    }

    /// A built-in space.
    ///
    /// # Errors
    /// When there is none; the message lists them.
    pub fn space(&self, name: &str) -> Result<&SpaceDef, Invalid> {
        self.spaces
            .get(name)
            .ok_or_else(|| unknown("space", name, self.spaces.keys().map(String::as_str)))
    }

    /// All built-in spaces, by name.
    pub fn spaces(&self) -> impl Iterator<Item = &SpaceDef> {
        self.spaces.values()
    }

    /// A built-in network as its author wrote it.
    ///
    /// # Errors
    /// When there is none; the message lists them.
    pub fn network_spec(&self, name: &str) -> Result<&NetworkSpec, Invalid> {
        self.networks
            .get(name)
            .ok_or_else(|| unknown("network", name, self.networks.keys().map(String::as_str)))
    }

    /// All built-in networks as their authors wrote them, by name.
    pub fn networks(&self) -> impl Iterator<Item = &NetworkSpec> {
        self.networks.values()
    }
}

pub(crate) fn unknown<'a>(kind: &str, name: &str, known: impl Iterator<Item = &'a str>) -> Invalid {
    let known: Vec<&str> = known.collect();
    Invalid::new(
        format!("{kind} {}", shown(name)),
        format!("there is no such {kind}; the built-in ones are {}", known.join(", ")),
    )
}

/// The closest names. Names that begin with the wanted one come first: they are variants of the same block.
fn closest<'a>(name: &str, known: impl Iterator<Item = &'a String>) -> String {
    let wanted = name.to_lowercase();
    let other = |known: &str| wanted.is_empty() || !known.to_lowercase().starts_with(&wanted);
    let mut ranked: Vec<(bool, usize, &str)> =
        known.map(|known| (other(known), edit_distance(name, known), known.as_str())).collect();
    ranked.sort_unstable();
    let names: Vec<&str> = ranked.into_iter().take(3).map(|(_, _, known)| known).collect();
    names.join(", ")
}

/// Levenshtein distance, case ignored, on at most 60 characters.
fn edit_distance(a: &str, b: &str) -> usize {
    let lower = |s: &str| s.chars().take(60).flat_map(char::to_lowercase).collect::<String>();
    strsim::levenshtein(&lower(a), &lower(b))
}
