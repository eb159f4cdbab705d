//! `latlas farm`: commands for the host of a farm.

mod audit;
mod boxes;
mod tokens;

use std::io::Write;

use anyhow::Result;
use jiff::Timestamp;
use latlas_shared::api::{AgentChange, AgentState};

use crate::cli;

/// Runs the command.
///
/// # Errors
/// When the coordinator does not answer or refuses.
pub fn run(command: &cli::Farm, farm: &super::Coordinator, out: &mut dyn Write) -> Result<()> {
    match command {
        cli::Farm::Tokens(command) => tokens::run(command, farm, out),
        cli::Farm::Status { json } => boxes::status(farm, *json, out),
        cli::Farm::Agents { label, json } => boxes::agents(farm, label, *json, out),
        cli::Farm::Name { agent, name, json } => {
            let change = AgentChange { name: Some(name.clone()), ..AgentChange::default() };
            boxes::change(farm, agent, &change, *json, out)
        }
        cli::Farm::Label { agent, labels, json } => {
            let labels = labels.iter().cloned().collect();
            let change = AgentChange { labels, ..AgentChange::default() };
            boxes::change(farm, agent, &change, *json, out)
        }
        cli::Farm::Remove { agent } => boxes::remove(farm, agent, out),
        cli::Farm::Quarantine(change) => boxes::decide(farm, change, AgentState::Quarantined, out),
        cli::Farm::Drain(change) => boxes::decide(farm, change, AgentState::Draining, out),
        cli::Farm::Release { agent, json } => boxes::release(farm, agent, *json, out),
        cli::Farm::Audit { last, json } => audit::run(*last, *json, farm, out),
    }
}

/// A time, as shown in lists.
fn moment(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}
