//! `latlas request`, and the functions that it shares with `latlas profile`: showing a request and waiting for it.

use std::io::Write;

use anyhow::{Result, anyhow, bail};
use jiff::Timestamp;
use latlas_client::attendance::{self, word};
use latlas_client::{Client, follow};
use latlas_shared::api::RequestStatus;
use uuid::Uuid;

use super::{Coordinator, write_json};
use crate::cli::Request;
use crate::pick::{Candidate, pick};
use crate::progress::ProgressDisplay;
use crate::text::{count, plain};
use latlas_program::text_table::TextTable;

/// Runs the command.
///
/// # Errors
/// When the coordinator does not answer or has no such request, or its tasks failed.
pub fn run(command: &Request, farm: &Coordinator, out: &mut dyn Write) -> Result<()> {
    match command {
        Request::List { json } => list(farm, *json, out),
        Request::Show { id, wait, json } => {
            let status = farm.ask(async |client| {
                let id = find(&client, id).await?;
                let status: RequestStatus = client.get(&format!("v1/requests/{id}")).await?;
                if *wait { waited(&client, status).await } else { Ok(status) }
            })?;
            write_status(&status, *json, out)?;
            if *wait { failures(&status) } else { Ok(()) }
        }
        Request::Cancel { id, json } => cancel(farm, id, *json, out),
    }
}

/// Looks up a request by its id, or the beginning of the id.
async fn find(client: &Client, text: &str) -> Result<Uuid> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    let all: Vec<RequestStatus> = client.get_all("v1/requests").await?;
    let candidate = |request: RequestStatus| Candidate {
        id: request.id,
        name: None,
        what: format!("{} on {}, {}", wanted(&request), request.hardware_id, word(&request)),
    };
    let candidates: Vec<Candidate> = all.into_iter().map(candidate).collect();
    pick(&candidates, text, "request", "`latlas request list` lists their ids")
        .map_err(|e| anyhow!(e))
}

fn cancel(farm: &Coordinator, id: &str, json: bool, out: &mut dyn Write) -> Result<()> {
    let status: RequestStatus = farm.ask(async |client| {
        let id = find(&client, id).await?;
        let path = format!("v1/requests/{id}/cancel");
        Ok(client.post(&path, &serde_json::json!({})).await?)
    })?;
    if json {
        return write_json(out, &status);
    }
    match attendance::cancelled(&status, Timestamp::now()) {
        Some(text) => writeln!(out, "request {} is {text}", status.id)?,
        None => writeln!(out, "request {} has already finished; nothing was cancelled", status.id)?,
    }
    Ok(())
}

fn list(farm: &Coordinator, json: bool, out: &mut dyn Write) -> Result<()> {
    let all: Vec<RequestStatus> =
        farm.ask(async |client| Ok(client.get_all("v1/requests").await?))?;
    if json {
        return all.iter().try_for_each(|request| write_json(out, request));
    }
    let mut columns = TextTable::new([
        "REQUEST", "HARDWARE", "WANTED", "STATE", "MEASURED", "FAILED", "OF", "CREATED",
    ]);
    for request in &all {
        columns.push([
            request.id.to_string(),
            request.hardware_id.to_string(),
            wanted(request),
            word(request).to_owned(),
            request.done.to_string(),
            request.failed.to_string(),
            request.total.to_string(),
            request.created_at.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
        ]);
    }
    Ok(columns.write(out)?)
}

/// The content of a request: its space, and the number of networks.
fn wanted(status: &RequestStatus) -> String {
    let networks =
        (status.networks > 0).then(|| count(status.networks as usize, "network", "networks"));
    let parts: Vec<String> = status.space.iter().cloned().chain(networks).collect();
    parts.join(" + ")
}

/// The state of a request when it is finished.
///
/// # Errors
/// When the user or the coordinator ends the wait early. The message contains the command that continues the wait.
pub(super) async fn waited(client: &Client, status: RequestStatus) -> Result<RequestStatus> {
    if status.is_finished() {
        return Ok(status);
    }
    let again = look_again(client, status.id);
    let mut progress = ProgressDisplay::new();
    let ending = tokio::select! {
        ending = follow(client, &status, &mut progress) => Some(ending),
        _ = tokio::signal::ctrl_c() => None,
    };
    progress.clear();
    match ending {
        Some(ended) => {
            ended.map_err(|error| anyhow!(error).context(format!("the wait ended. {again}")))
        }
        None => bail!("the wait was interrupted. {again}"),
    }
}

pub(super) fn look_again(client: &Client, id: Uuid) -> String {
    let address = client.base().as_str().trim_end_matches('/');
    format!(
        "The request goes on without this program; look at it again with `latlas --coordinator {address} \
         request show {id} --wait`"
    )
}

pub(super) fn write_status(status: &RequestStatus, json: bool, out: &mut dyn Write) -> Result<()> {
    if json {
        return write_json(out, status);
    }
    writeln!(out, "request   {}", status.id)?;
    writeln!(out, "hardware  {}", status.hardware_id)?;
    writeln!(out, "config    {}", status.config)?;
    writeln!(out, "wanted    {}", plain(&wanted(status)))?;
    let open = status.open();
    writeln!(
        out,
        "tasks     {}: {} measured, {} failed, {open} to do ({} of them running)",
        status.total, status.done, status.failed, status.running
    )?;
    let now = Timestamp::now();
    if let Some(text) = attendance::cancelled(status, now) {
        writeln!(out, "ended     {text}")?;
    }
    if let Some(text) = attendance::nobody(status, now) {
        writeln!(out, "{text}")?;
    }
    Ok(())
}

/// An error that lists the tasks that could not be measured, or names who cancelled the request.
pub(super) fn failures(status: &RequestStatus) -> Result<()> {
    if let Some(text) = attendance::cancelled(status, Timestamp::now()) {
        bail!("the request was {text}");
    }
    if status.failed == 0 {
        return Ok(());
    }
    let mut text =
        format!("{} could not be measured:", count(status.failed as usize, "task", "tasks"));
    for (task, reason) in &status.failures {
        text.push_str(&format!("\n  {}  ({})", plain(task), plain(reason)));
    }
    let unlisted = (status.failed as usize).saturating_sub(status.failures.len());
    if unlisted > 0 {
        text.push_str(&format!("\n  and {unlisted} more"));
    }
    bail!(text)
}
