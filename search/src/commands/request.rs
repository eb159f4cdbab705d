//! `latlas request`, and what it shares with `latlas profile`: how a request is shown and waited for.

use std::io::Write;

use anyhow::{Result, anyhow, bail};
use latlas_shared::api::RequestStatus;
use latlas_shared::client::Client;
use uuid::Uuid;

use super::{Farm, write_json};
use crate::cli::Request;
use crate::follow::{Ending, follow};
use crate::text::{Columns, count, plain};

/// Runs the command.
///
/// # Errors
/// When the coordinator does not answer or has no such request, or its tasks failed.
pub fn run(command: &Request, farm: &Farm, out: &mut dyn Write) -> Result<()> {
    match command {
        Request::List { json } => list(farm, *json, out),
        Request::Show { id, wait, json } => {
            let status = farm.ask(async |client| {
                let status: RequestStatus = client.get(&format!("v1/requests/{id}")).await?;
                if *wait { waited(&client, status).await } else { Ok(status) }
            })?;
            write_status(&status, *json, out)?;
            if *wait { failures(&status) } else { Ok(()) }
        }
    }
}

fn list(farm: &Farm, json: bool, out: &mut dyn Write) -> Result<()> {
    let all: Vec<RequestStatus> =
        farm.ask(async |client| Ok(client.get_all("v1/requests").await?))?;
    if json {
        return all.iter().try_for_each(|request| write_json(out, request));
    }
    let mut columns =
        Columns::new(["REQUEST", "HARDWARE", "WANTED", "MEASURED", "FAILED", "OF", "CREATED"]);
    for request in &all {
        columns.push([
            request.id.to_string(),
            request.hardware_id.to_string(),
            wanted(request),
            request.done.to_string(),
            request.failed.to_string(),
            request.total.to_string(),
            request.created_at.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
        ]);
    }
    Ok(columns.write(out)?)
}

/// What a request asks for: its space, and how many networks.
fn wanted(status: &RequestStatus) -> String {
    let networks =
        (status.networks > 0).then(|| count(status.networks as usize, "network", "networks"));
    let parts: Vec<String> = status.space.iter().cloned().chain(networks).collect();
    parts.join(" + ")
}

/// The state of a request when it is finished.
///
/// # Errors
/// When the user or the coordinator ends the wait before; the message says how to go on.
pub(super) async fn waited(client: &Client, status: RequestStatus) -> Result<RequestStatus> {
    if status.is_finished() {
        return Ok(status);
    }
    let again = look_again(client, status.id);
    match follow(client, status.id).await {
        Ok(Ending::Finished(status)) => Ok(status),
        Ok(Ending::Interrupted) => bail!("the wait was interrupted. {again}"),
        Err(error) => Err(anyhow!(error).context(format!("the wait ended. {again}"))),
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
    let open = status.total.saturating_sub(status.done + status.failed);
    writeln!(
        out,
        "tasks     {}: {} measured, {} failed, {open} to do ({} of them running)",
        status.total, status.done, status.failed, status.running
    )?;
    Ok(())
}

/// An error that lists what could not be measured, if anything.
pub(super) fn failures(status: &RequestStatus) -> Result<()> {
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
