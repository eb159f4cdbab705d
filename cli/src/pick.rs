//! Look-up of things by an id, the beginning of an id, or a name.

use uuid::Uuid;

use crate::text::plain;

/// Something that has an id.
pub(crate) struct Candidate {
    pub id: Uuid,
    /// Its name, if it has one; not always unique.
    pub name: Option<String>,
    /// A description that distinguishes it from others in a list.
    pub what: String,
}

/// Why a text does not name one thing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PickError {
    /// Nothing matches this id or name.
    #[error("there is no {kind} `{text}`: {list}")]
    None { kind: &'static str, text: String, list: &'static str },
    /// Several candidates match. `lines` lists them, one per line.
    #[error(
        "`{text}` matches {count} {kind}s; write the id of one, or enough of its beginning:{lines}"
    )]
    Several { kind: &'static str, text: String, count: usize, lines: String },
}

/// The id of the only candidate with this id, name, or beginning of an id. `kind` and `list` are for the error.
pub(crate) fn pick(
    candidates: &[Candidate],
    text: &str,
    kind: &'static str,
    list: &'static str,
) -> Result<Uuid, PickError> {
    let id = text.to_lowercase();
    if let Some(whole) = candidates.iter().find(|one| one.id.to_string() == id) {
        return Ok(whole.id);
    }
    let named = candidates.iter().filter(|one| one.name.as_deref() == Some(text));
    let mut found: Vec<&Candidate> = named.collect();
    if found.is_empty() && !id.is_empty() {
        found = candidates.iter().filter(|one| one.id.to_string().starts_with(&id)).collect();
    }
    match found.as_slice() {
        [one] => Ok(one.id),
        [] => Err(PickError::None { kind, text: plain(text), list }),
        several => {
            let lines: Vec<String> =
                several.iter().map(|one| format!("\n  {}  {}", one.id, plain(&one.what))).collect();
            Err(PickError::Several {
                kind,
                text: plain(text),
                count: several.len(),
                lines: lines.concat(),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates() -> Vec<Candidate> {
        let one = |id: u128, name: &str| Candidate {
            id: Uuid::from_u128(id << 96),
            name: Some(name.to_owned()),
            what: format!("{name}, active"),
        };
        vec![
            one(0xab00_0001, "vm"),
            one(0xab00_0002, "vm"),
            one(0xcd00_0000, "lab"),
            one(0xef, "cd"),
        ]
    }

    fn picked(text: &str) -> Result<String, PickError> {
        let id = pick(&candidates(), text, "agent", "LIST")?;
        Ok(id.to_string()[..8].to_owned())
    }

    #[test]
    fn a_name_or_the_beginning_of_an_id_is_enough() {
        assert_eq!(picked("lab").unwrap(), "cd000000");
        assert_eq!(picked("ab000002").unwrap(), "ab000002");
        assert_eq!(picked("AB000001-0000-0000-0000-000000000000").unwrap(), "ab000001");
        assert_eq!(picked("cd").unwrap(), "000000ef", "a name comes before the beginning of an id");
        assert_eq!(picked("cd0").unwrap(), "cd000000");
    }

    #[test]
    fn what_is_not_clear_is_listed() {
        for text in ["vm", "ab"] {
            let error = picked(text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("`{text}` matches 2 agents")), "{error}");
            assert!(
                error.contains("\n  ab000002-0000-0000-0000-000000000000  vm, active"),
                "{error}"
            );
        }
        for text in ["nobody", ""] {
            let error = picked(text).unwrap_err().to_string();
            assert_eq!(error, format!("there is no agent `{text}`: LIST"));
        }
    }
}
