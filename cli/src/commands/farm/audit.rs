//! `latlas farm audit`.

use std::io::Write;

use anyhow::Result;
use latlas_shared::api::{AuditEntry, Page};
use serde_json::Value;

use super::moment;
use crate::commands::{Coordinator, write_json};
use latlas_program::text_table::TextTable;

pub(super) fn run(last: u32, json: bool, farm: &Coordinator, out: &mut dyn Write) -> Result<()> {
    let page: Page<AuditEntry> =
        farm.ask(async |client| Ok(client.get(&format!("v1/audit?limit={last}")).await?))?;
    if json {
        return page.items.iter().try_for_each(|entry| write_json(out, entry));
    }
    let mut columns = TextTable::new(["TIME", "WHO", "ACTION", "SUBJECT", "DETAIL"]);
    for entry in &page.items {
        let who = match entry.token_id {
            None => entry.who.clone(),
            Some(id) if entry.who.is_empty() => format!("token {id}"),
            Some(id) => format!("{} (token {id})", entry.who),
        };
        columns.push([
            moment(entry.at),
            who,
            entry.action.clone(),
            entry.subject.clone(),
            detail(&entry.detail),
        ]);
    }
    Ok(columns.write(out)?)
}

/// `role=enroll uses=100`: the fields of an object that are not empty, or another value unchanged.
fn detail(detail: &Value) -> String {
    let Value::Object(fields) = detail else { return detail.to_string() };
    let said = |(name, value): (&String, &Value)| match value {
        Value::Null => None,
        Value::String(text) => (!text.is_empty()).then(|| format!("{name}={text}")),
        other => Some(format!("{name}={other}")),
    };
    fields.iter().filter_map(said).collect::<Vec<_>>().join(" ")
}
