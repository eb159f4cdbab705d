//! `latlas table`.

mod build;

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use latlas_client::{Download, WantedTable, stale_warning};
use latlas_shared::api::TableEntry;
use latlas_shared::{Row, RowStatus, SustainedOverBurst, Table};

use super::{Coordinator, write_json};
use crate::cli::{Format, Table as Command, TableGet, TableShow};
use crate::files;
use crate::text::{count, duration, plain};
use latlas_program::text_table::TextTable;

/// Runs the command.
///
/// # Errors
/// When the coordinator does not answer or has no such table, or the file cannot be written.
pub fn run(command: &Command, farm: &Coordinator, out: &mut dyn Write) -> Result<()> {
    match command {
        Command::List { json } => list(farm, *json, out),
        Command::Get(what) => get(what, farm, out),
        Command::Build(what) => build::run(what, out),
        Command::Show(what) => show(what, out),
    }
}

/// Rows for people, below a header.
fn show(what: &TableShow, out: &mut dyn Write) -> Result<()> {
    let index = files::read_table(&what.file)?;
    let table = index.table();
    let op = what.op.as_deref().map(|name| index.catalog().op(name)).transpose()?;
    let rows: Vec<&Row> =
        table.rows.iter().filter(|row| op.is_none_or(|op| op.name() == row.op_type)).collect();
    if what.json {
        return rows.iter().try_for_each(|row| write_json(out, row));
    }
    writeln!(out, "{}  {}", table.hardware_id, table.run_config.id())?;
    writeln!(out, "version {}  {}", table.version, count(rows.len(), "row", "rows"))?;
    if let Some(sustained) = &table.sustained {
        writeln!(out, "{}", sustained_line(sustained))?;
    }
    let mut columns =
        TextTable::new(["OP", "INPUT", "C_IN", "C_OUT", "STRIDE", "LATENCY", "95% CI", "STATUS"]);
    for row in &rows {
        columns.push([
            row.op_type.clone(),
            format!("{}x{}x{}", row.batch, row.input_h, row.input_w),
            row.channels_in.to_string(),
            row.channels_out.to_string(),
            row.stride.to_string(),
            row.latency_micros.map_or_else(|| "-".to_owned(), duration),
            row.ci95_rel.map_or_else(|| "-".to_owned(), |share| format!("±{:.1}%", 100.0 * share)),
            match (row.latency_micros, &row.reason) {
                (None, Some(reason)) => format!("{}: {reason}", row.status.name()),
                _ => row.status.name().to_owned(),
            },
        ]);
    }
    columns.write(out)?;
    for remark in remarks(&rows) {
        writeln!(out, "{remark}")?;
    }
    Ok(())
}

/// `sustained over burst  1.18 (3 networks, 10 min)`.
fn sustained_line(sustained: &SustainedOverBurst) -> String {
    let SustainedOverBurst { over_burst, networks, seconds } = *sustained;
    let time = match seconds % 60 {
        0 => format!("{} min", seconds / 60),
        _ => format!("{seconds} s"),
    };
    let networks = count(networks as usize, "network", "networks");
    format!("sustained over burst  {over_burst:.2} ({networks}, {time})")
}

/// One line for each status other than `ok` among rows with a latency: the number of rows, and the reason. A row
/// without a latency has its reason next to it.
fn remarks(rows: &[&Row]) -> Vec<String> {
    let remark = |(status, meaning): (RowStatus, &str)| {
        let mut of_status = rows.iter().filter(|row| row.status == status);
        let first = of_status.next()?;
        let reason = first.reason.as_deref().map_or_else(String::new, |reason| {
            plain(&format!("; the first, {}: {reason}", first.key()))
        });
        let verb = if of_status.clone().next().is_some() { "are" } else { "is" };
        Some(format!(
            "{} of {} {verb} {}: {meaning}{reason}",
            1 + of_status.count(),
            count(rows.len(), "row", "rows"),
            status.name()
        ))
    };
    [
        (
            RowStatus::NotConverged,
            "the time for a row was over before its interval was narrow enough",
        ),
        (RowStatus::Degraded, "the machine was disturbed while they were measured"),
        (
            RowStatus::Suspect,
            "out of line with rows of other shapes, so predictions do not use them",
        ),
    ]
    .into_iter()
    .filter_map(remark)
    .collect()
}

fn list(farm: &Coordinator, json: bool, out: &mut dyn Write) -> Result<()> {
    let tables: Vec<TableEntry> =
        farm.ask(async |client| Ok(client.get_all("v1/tables").await?))?;
    if json {
        return tables.iter().try_for_each(|table| write_json(out, table));
    }
    let mut columns = TextTable::new(["HARDWARE", "CONFIG", "VERSION", "ROWS", "CREATED"]);
    for table in &tables {
        columns.push([
            table.hardware_id.to_string(),
            table.config.clone(),
            table.version.clone().unwrap_or_else(|| "-".to_owned()),
            table.rows.to_string(),
            table.created_at.map_or_else(
                || "-".to_owned(),
                |time| time.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
            ),
        ]);
    }
    columns.write(out)?;
    for TableEntry { hardware_id, config, stale, .. } in &tables {
        if let Some(stale) = stale {
            eprintln!(
                "warning: {}",
                stale_warning(&format!("{hardware_id}, {config}"), stale.name())
            );
        }
    }
    if tables.is_empty() {
        eprintln!("there is no table yet: ask for one with `latlas profile`");
    }
    Ok(())
}

fn get(what: &TableGet, farm: &Coordinator, out: &mut dyn Write) -> Result<()> {
    let wanted = WantedTable {
        hardware: &what.hardware,
        config: what.config.as_deref(),
        version: what.version.as_deref(),
        format: what.format.name(),
    };
    let Download { content, stale } =
        farm.ask(async |client| Ok(client.download(&wanted).await?))?;
    if let Some(why) = stale {
        eprintln!("warning: {}", stale_warning(what.hardware.as_str(), &why));
    }
    let said = match what.format {
        // A damaged answer should be found now, not later by the program that reads the file.
        Format::Json => {
            let text = str::from_utf8(&content).context("the coordinator's answer is not text")?;
            let table = Table::from_json(text).context("the coordinator's answer")?;
            format!("{}, version {}", count(table.rows.len(), "row", "rows"), table.version)
        }
        Format::Ndjson | Format::Csv => format!("{} bytes", content.len()),
    };
    write_to(what.output.as_deref(), &content, &said, out)
}

/// Writes to a file and reports it, or to stdout.
fn write_to(output: Option<&Path>, content: &[u8], said: &str, out: &mut dyn Write) -> Result<()> {
    match output {
        Some(path) if !files::is_standard(path) => {
            files::write_whole(path, content)?;
            eprintln!("wrote {}: {said}", path.display());
        }
        _ => out.write_all(content)?,
    }
    Ok(())
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
