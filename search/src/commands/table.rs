//! `latlas table`.

use std::io::Write;

use anyhow::{Context, Result};
use latlas_shared::Table;
use latlas_shared::api::TableEntry;
use latlas_shared::client::{Client, with_query};

use super::{Farm, write_json};
use crate::cli::{Format, Table as Command, TableGet};
use crate::files;
use crate::text::{Columns, count};

/// Runs the command.
///
/// # Errors
/// When the coordinator does not answer or has no such table, or the file cannot be written.
pub fn run(command: &Command, farm: &Farm, out: &mut dyn Write) -> Result<()> {
    match command {
        Command::List { json } => list(farm, *json, out),
        Command::Get(what) => get(what, farm, out),
    }
}

fn list(farm: &Farm, json: bool, out: &mut dyn Write) -> Result<()> {
    let tables: Vec<TableEntry> =
        farm.ask(async |client| Ok(client.get_all("v1/tables").await?))?;
    if json {
        return tables.iter().try_for_each(|table| write_json(out, table));
    }
    let mut columns = Columns::new(["HARDWARE", "CONFIG", "VERSION", "ROWS", "CREATED"]);
    for table in &tables {
        columns.push([
            table.hardware_id.to_string(),
            table.config.clone(),
            table.version.clone(),
            table.rows.to_string(),
            table.created_at.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
        ]);
    }
    columns.write(out)?;
    if tables.is_empty() {
        eprintln!("there is no table yet: ask for one with `latlas profile`");
    }
    Ok(())
}

fn get(what: &TableGet, farm: &Farm, out: &mut dyn Write) -> Result<()> {
    let content = farm.ask(async |client| download(&client, what).await)?;
    let rows = match what.format {
        // What is no table is better found now than by the program that reads the file.
        Format::Json => {
            let text = str::from_utf8(&content).context("the coordinator's answer is not text")?;
            let table = Table::from_json(text).context("the coordinator's answer")?;
            format!("{}, version {}", count(table.rows.len(), "row", "rows"), table.version)
        }
        Format::Ndjson | Format::Csv => format!("{} bytes", content.len()),
    };
    match &what.output {
        Some(path) if !files::is_standard(path) => {
            files::write_whole(path, &content)?;
            eprintln!("wrote {}: {rows}", path.display());
        }
        _ => out.write_all(&content)?,
    }
    Ok(())
}

async fn download(client: &Client, what: &TableGet) -> Result<Vec<u8>> {
    let mut path = format!("v1/tables/{}", what.hardware);
    if let Some(version) = &what.version {
        path = format!("{path}/versions/{version}");
    }
    let mut query = Vec::new();
    if let Some(config) = &what.config {
        query.push(("config", config.as_str()));
    }
    query.push(("format", what.format.name()));
    let mut response = client.get_raw(&with_query(&path, &query)).await?;
    let mut content = Vec::new();
    while let Some(bytes) = response.chunk().await.map_err(|e| client.unreachable(&e))? {
        content.extend_from_slice(&bytes);
    }
    Ok(content)
}

impl Format {
    fn name(self) -> &'static str {
        match self {
            Format::Json => "json",
            Format::Ndjson => "ndjson",
            Format::Csv => "csv",
        }
    }
}
