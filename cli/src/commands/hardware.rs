//! `latlas hardware`.

use std::io::Write;

use anyhow::Result;
use latlas_shared::api::HardwareEntry;

use super::{Coordinator, write_json};
use crate::cli::Hardware;
use latlas_program::text_table::TextTable;

/// Runs the command.
///
/// # Errors
/// When the coordinator does not answer.
pub fn run(command: &Hardware, farm: &Coordinator, out: &mut dyn Write) -> Result<()> {
    let Hardware::List { json } = command;
    let entries: Vec<HardwareEntry> =
        farm.ask(async |client| Ok(client.get_all("v1/hardware").await?))?;
    if *json {
        return entries.iter().try_for_each(|entry| write_json(out, entry));
    }
    let mut columns = TextTable::new(["HARDWARE", "AGENTS", "CONFIGS"]);
    for entry in &entries {
        columns.push([
            entry.hardware_id.to_string(),
            entry.agents.to_string(),
            entry.configs.join(", "),
        ]);
    }
    columns.write(out)?;
    if entries.is_empty() {
        eprintln!("no agent has enrolled yet: start one with `latlas-agent run`");
    }
    Ok(())
}
