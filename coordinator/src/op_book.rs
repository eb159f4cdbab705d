//! The ops that a coordinator knows: the built-in catalog, the ops that researchers submitted, and old definitions of
//! measured rows.

use std::collections::HashMap;
use std::sync::Arc;

use ops_catalog::{Catalog, Invalid, Op, OpDef, OpDigest};

/// The number of an op inside the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OpId(pub i64);

/// An op that is stored.
#[derive(Debug, Clone)]
pub struct BookedOp {
    /// Its number.
    pub id: OpId,
    /// The op.
    pub op: Arc<Op>,
    /// Whether the built-in catalog currently contains this definition.
    pub builtin: bool,
    /// Whether its name currently refers to this definition.
    pub current: bool,
}

/// The relation of a definition to the book.
#[derive(Debug)]
pub enum Novelty {
    /// It is new and valid.
    New(Arc<Op>),
    /// It is known, under this name.
    Known(OpDigest),
}

/// Why a definition is refused.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    /// The definition is invalid.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// It collides with a known op.
    #[error("{0}")]
    Conflict(String),
}

/// The most bytes of an op's description.
const MOST_DOC: usize = 10_000;

/// The most aliases of an op.
const MOST_ALIASES: usize = 16;

/// Limits the parts of a definition that do not affect the computation; the other parts have their own limits.
fn check_prose(op: &Op) -> Result<(), Invalid> {
    let invalid = |field: &str, problem: String| {
        Err(Invalid::new(format!("op {}, {field}", op.name()), problem))
    };
    if op.def().doc.len() > MOST_DOC {
        return invalid("doc", format!("has more than {MOST_DOC} bytes"));
    }
    if op.def().aliases.len() > MOST_ALIASES {
        return invalid("aliases", format!("are more than {MOST_ALIASES}"));
    }
    Ok(())
}

/// All ops, by name and by digest.
#[derive(Debug, Clone, Default)]
pub struct OpBook {
    catalog: Catalog,
    by_digest: HashMap<OpDigest, BookedOp>,
}

impl OpBook {
    /// A book of these ops, and the current meanings of names.
    pub fn new(catalog: Catalog, entries: impl IntoIterator<Item = BookedOp>) -> OpBook {
        let by_digest = entries.into_iter().map(|e| (e.op.digest().clone(), e)).collect();
        OpBook { catalog, by_digest }
    }

    /// The current meanings of names, and the built-in spaces and networks.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The op with a digest, including old definitions.
    pub fn by_digest(&self, digest: &OpDigest) -> Option<&BookedOp> {
        self.by_digest.get(digest)
    }

    /// Whether a definition could be added.
    ///
    /// A name refers to one definition, since rows are found by name. A definition has one name, since a table would
    /// otherwise contain a row twice.
    ///
    /// # Errors
    /// When the definition is invalid, or collides.
    pub fn novelty(&self, def: OpDef) -> Result<Novelty, NotTaken> {
        let op = Op::new(def)?;
        check_prose(&op)?;
        if let Some(known) = self.by_digest(op.digest()) {
            if known.op.name() == op.name() {
                return Ok(Novelty::Known(op.digest().clone()));
            }
            return Err(NotTaken::Conflict(format!(
                "op {} computes exactly what {} does (digest {}): use that name",
                op.name(),
                known.op.name(),
                op.digest()
            )));
        }
        self.catalog
            .with_ops([op.def().clone()])
            .map_err(|collision| NotTaken::Conflict(collision.to_string()))?;
        Ok(Novelty::New(Arc::new(op)))
    }

    /// The book with one more op, which is new according to [`OpBook::novelty`].
    ///
    /// # Errors
    /// When it collides nevertheless.
    pub fn with(&self, entry: BookedOp) -> Result<OpBook, Invalid> {
        let catalog = self.catalog.with_ops([entry.op.def().clone()])?;
        let mut by_digest = self.by_digest.clone();
        by_digest.insert(entry.op.digest().clone(), entry);
        Ok(OpBook { catalog, by_digest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// The store finds an op by its digest, so the catalog must not contain a definition twice.
    #[test]
    fn a_built_in_definition_has_one_name() {
        let mut names: BTreeMap<&OpDigest, &str> = BTreeMap::new();
        for op in Catalog::builtin().ops() {
            let other = names.insert(op.digest(), op.name());
            assert_eq!(other, None, "{} is defined like it", op.name());
        }
    }
}
