//! The farm at one glance, its boxes, and decisions about them.

use std::io::Write;

use anyhow::{Result, anyhow};
use jiff::Timestamp;
use latlas_client::Client;
use latlas_shared::api::{
    AgentChange, AgentEntry, AgentPresence, AgentState, BoxState, FarmEntry, StateChange,
};
use uuid::Uuid;

use crate::cli::AgentDecision;
use crate::commands::{Coordinator, write_json};
use crate::pick::{Candidate, pick};
use crate::text::{age, count, plain};
use latlas_program::text_table::TextTable;

/// The most agents that the one-screen view names.
const MOST_NAMED: usize = 20;

pub(super) fn status(farm: &Coordinator, json: bool, out: &mut dyn Write) -> Result<()> {
    let (entries, agents): (Vec<FarmEntry>, Vec<AgentEntry>) = farm.ask(async |client| {
        Ok((client.get_all("v1/farm").await?, client.get_all("v1/agents").await?))
    })?;
    if json {
        return entries.iter().try_for_each(|entry| write_json(out, entry));
    }
    let now = Timestamp::now();
    for entry in &entries {
        write_entry(entry, now, out)?;
    }
    if entries.is_empty() {
        eprintln!("no agent has enrolled yet: start one with `latlas-agent run`");
    }
    write_odd(&agents, now, out)
}

fn write_entry(entry: &FarmEntry, now: Timestamp, out: &mut dyn Write) -> Result<()> {
    writeln!(out, "{} {}", entry.hardware_id, plain(&entry.config))?;
    let states: Vec<String> =
        entry.agents.iter().map(|(state, n)| format!("{n} {}", plain(state))).collect();
    let states = if states.is_empty() { "none".to_owned() } else { states.join(", ") };
    writeln!(out, "  agents  {states}")?;
    let oldest = entry
        .oldest_waiting
        .map(|since| format!("; the oldest open request is from {} ago", age(since, now)));
    writeln!(
        out,
        "  tasks   {} waiting, {} running, {} failed{}",
        entry.queued,
        entry.running,
        entry.failed,
        oldest.unwrap_or_default()
    )?;
    let mut failures: Vec<(&String, &u32)> = entry.failures.iter().collect();
    failures.sort_by_key(|&(reason, n)| (std::cmp::Reverse(*n), reason));
    for (reason, n) in failures {
        writeln!(out, "  failed  {n} x {}", plain(reason))?;
    }
    let rows = count(entry.rows as usize, "row", "rows");
    match entry.measured_at {
        Some(at) => writeln!(out, "  table   {rows}, the latest measured {} ago", age(at, now))?,
        None => writeln!(out, "  table   {rows}")?,
    }
    Ok(())
}

/// The agents that get no work, with the reason.
fn write_odd(agents: &[AgentEntry], now: Timestamp, out: &mut dyn Write) -> Result<()> {
    let odd: Vec<&AgentEntry> = agents.iter().filter(|agent| why(agent).is_some()).collect();
    if odd.is_empty() {
        return Ok(());
    }
    writeln!(out, "agents that get no work")?;
    for agent in odd.iter().take(MOST_NAMED) {
        let since = agent.standing.since.unwrap_or(agent.seen_at);
        writeln!(
            out,
            "  {} ({}), {} for {}: {}",
            plain(&agent.name),
            agent.agent_id,
            shown_state(agent),
            age(since, now),
            plain(&why(agent).unwrap_or_default())
        )?;
    }
    if odd.len() > MOST_NAMED {
        writeln!(out, "  and {} more: latlas farm agents", odd.len() - MOST_NAMED)?;
    }
    Ok(())
}

/// Lists the agents that match all labels.
pub(super) fn agents(
    farm: &Coordinator,
    wanted: &[(String, Option<String>)],
    json: bool,
    out: &mut dyn Write,
) -> Result<()> {
    let mut agents: Vec<AgentEntry> =
        farm.ask(async |client| Ok(client.get_all("v1/agents").await?))?;
    agents.retain(|agent| {
        wanted.iter().all(|(key, value)| match value {
            Some(value) => agent.labels.get(key) == Some(value),
            None => !agent.labels.contains_key(key),
        })
    });
    if json {
        return agents.iter().try_for_each(|agent| write_json(out, agent));
    }
    let now = Timestamp::now();
    let mut columns =
        TextTable::new(["NAME", "AGENT", "HARDWARE", "STATE", "SEEN", "WORK", "REASON"]);
    for agent in &agents {
        columns.push([
            named(agent),
            agent.agent_id.to_string(),
            agent.hardware_id.to_string(),
            shown_state(agent),
            format!("{} ago", age(agent.seen_at, now)),
            work(agent),
            why(agent).or_else(|| clock(agent)).unwrap_or_default(),
        ]);
    }
    Ok(columns.write(out)?)
}

/// `box-7 [rack=3]`: its name and labels.
fn named(agent: &AgentEntry) -> String {
    let labels: Vec<String> =
        agent.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    if labels.is_empty() {
        agent.name.clone()
    } else {
        format!("{} [{}]", agent.name, labels.join(", "))
    }
}

/// Its state, and its presence where the state does not contain it: `quarantined, silent`.
fn shown_state(agent: &AgentEntry) -> String {
    let state = agent.standing.state;
    let presence = match (state, agent.presence) {
        (BoxState::Silent | BoxState::Stopped, _) | (_, AgentPresence::Present) => {
            return state.to_string();
        }
        (_, AgentPresence::Silent) => BoxState::Silent,
        (_, AgentPresence::Stopped) => BoxState::Stopped,
    };
    format!("{state}, {presence}")
}

/// Why an agent gets no work; none if it does.
fn why(agent: &AgentEntry) -> Option<String> {
    if agent.standing.state == BoxState::Active {
        return None;
    }
    let reason = agent.standing.reason.as_deref().unwrap_or("no reason was given");
    Some(match &agent.standing.by {
        Some(by) => format!("{reason} (by {by})"),
        None => reason.to_owned(),
    })
}

/// The offset of its clock; none for a minute or less. The offset changes no result.
fn clock(agent: &AgentEntry) -> Option<String> {
    let ahead = agent.clock_ahead_seconds.filter(|seconds| seconds.abs() > 60.0)?;
    let off = jiff::SignedDuration::try_from_secs_f64(ahead.abs()).ok()?;
    let off = age(Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH.checked_add(off).ok()?);
    Some(format!("its clock is {off} {}", if ahead > 0.0 { "ahead" } else { "behind" }))
}

/// Its current work: `23 of 64 tasks, 512 visits`.
fn work(agent: &AgentEntry) -> String {
    let leases = agent.leases.iter().map(|lease| {
        let tasks = match lease.left {
            None => format!("canary of {}", count(lease.tasks as usize, "task", "tasks")),
            Some(left) => {
                let tasks = lease.tasks.max(left);
                format!("{} of {}", tasks - left, count(tasks as usize, "task", "tasks"))
            }
        };
        match lease.visits {
            Some(visits) => format!("{tasks}, {visits} visits"),
            None => tasks,
        }
    });
    let leases: Vec<String> = leases.collect();
    if leases.is_empty() { "-".to_owned() } else { leases.join("; ") }
}

/// Quarantines or drains an agent.
pub(super) fn decide(
    farm: &Coordinator,
    decision: &AgentDecision,
    state: AgentState,
    out: &mut dyn Write,
) -> Result<()> {
    let change = StateChange { state, reason: Some(decision.reason.clone()) };
    set_state(farm, &decision.agent, &change, decision.json, out)
}

/// Ends a quarantine or a drain.
pub(super) fn release(
    farm: &Coordinator,
    agent: &str,
    json: bool,
    out: &mut dyn Write,
) -> Result<()> {
    set_state(farm, agent, &StateChange { state: AgentState::Active, reason: None }, json, out)
}

fn set_state(
    farm: &Coordinator,
    agent: &str,
    change: &StateChange,
    json: bool,
    out: &mut dyn Write,
) -> Result<()> {
    let entry: AgentEntry = farm.ask(async |client| {
        let id = find(&client, agent).await?;
        Ok(client.put(&format!("v1/agents/{id}/state"), change).await?)
    })?;
    if json {
        return write_json(out, &entry);
    }
    writeln!(out, "{} ({}) is {}", plain(&entry.name), entry.agent_id, shown_state(&entry))?;
    Ok(())
}

/// Renames or labels an agent.
pub(super) fn change(
    farm: &Coordinator,
    agent: &str,
    change: &AgentChange,
    json: bool,
    out: &mut dyn Write,
) -> Result<()> {
    let entry: AgentEntry = farm.ask(async |client| {
        let id = find(&client, agent).await?;
        Ok(client.patch(&format!("v1/agents/{id}"), change).await?)
    })?;
    if json {
        return write_json(out, &entry);
    }
    writeln!(out, "{} is {}", entry.agent_id, plain(&named(&entry)))?;
    Ok(())
}

/// Removes an agent from the farm.
pub(super) fn remove(farm: &Coordinator, agent: &str, out: &mut dyn Write) -> Result<()> {
    let id = farm.ask(async |client| {
        let id = find(&client, agent).await?;
        client.delete(&format!("v1/agents/{id}")).await?;
        Ok(id)
    })?;
    writeln!(out, "{id} is removed; its measurements stay")?;
    Ok(())
}

/// Looks up an agent by its id, its name, or the beginning of its id.
async fn find(client: &Client, text: &str) -> Result<Uuid> {
    let agents: Vec<AgentEntry> = client.get_all("v1/agents").await?;
    let now = Timestamp::now();
    let candidate = |agent: &AgentEntry| Candidate {
        id: agent.agent_id,
        name: Some(agent.name.clone()),
        what: format!(
            "{} of {}, {}, last contact {} ago",
            named(agent),
            agent.hardware_id,
            shown_state(agent),
            age(agent.seen_at, now)
        ),
    };
    let candidates: Vec<Candidate> = agents.iter().map(candidate).collect();
    pick(&candidates, text, "agent", "`latlas farm agents` lists their names and ids")
        .map_err(|problem| anyhow!(problem))
}
