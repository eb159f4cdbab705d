//! `latlas farm tokens`.

use std::io::Write;

use anyhow::Result;
use jiff::Timestamp;
use latlas_shared::api::TokenEntry;

use super::moment;
use crate::cli::Tokens;
use crate::commands::{Coordinator, write_json};
use crate::text::plain;
use latlas_program::text_table::TextTable;

pub(super) fn run(command: &Tokens, farm: &Coordinator, out: &mut dyn Write) -> Result<()> {
    match command {
        Tokens::List { json } => list(*json, farm, out),
        Tokens::Revoke { id, json } => revoke(*id, *json, farm, out),
    }
}

fn list(json: bool, farm: &Coordinator, out: &mut dyn Write) -> Result<()> {
    let tokens: Vec<TokenEntry> =
        farm.ask(async |client| Ok(client.get_all("v1/tokens?limit=1000").await?))?;
    if json {
        return tokens.iter().try_for_each(|token| write_json(out, token));
    }
    let now = Timestamp::now();
    let time = |time: Option<Timestamp>, none: &str| time.map_or(none.to_owned(), moment);
    let mut columns = TextTable::new([
        "ID",
        "ROLE",
        "LABEL",
        "STATE",
        "CREATED",
        "LAST USED",
        "EXPIRES",
        "USES LEFT",
    ]);
    for token in &tokens {
        columns.push([
            token.id.to_string(),
            token.role.clone(),
            token.label.clone(),
            token.state(now).to_owned(),
            moment(token.created_at),
            time(token.last_used_at, "-"),
            time(token.expires_at, "never"),
            token.uses_left.map_or("-".to_owned(), |uses| uses.to_string()),
        ]);
    }
    Ok(columns.write(out)?)
}

fn revoke(id: i64, json: bool, farm: &Coordinator, out: &mut dyn Write) -> Result<()> {
    let token: TokenEntry = farm.ask(async |client| {
        Ok(client.post(&format!("v1/tokens/{id}/revoke"), &serde_json::json!({})).await?)
    })?;
    if json {
        return write_json(out, &token);
    }
    let label = if token.label.is_empty() { String::new() } else { format!(", {}", token.label) };
    writeln!(out, "token {id} ({}{}) is revoked", token.role, plain(&label))?;
    Ok(())
}
