//! Following a request until nothing more will happen to it.

use std::time::{Duration, Instant};

use anyhow::Result;
use latlas_shared::api::RequestStatus;
use latlas_shared::client::{Client, ClientError};
use uuid::Uuid;

use crate::events::Events;
use crate::progress::Progress;

/// Time between two questions when there is no stream of events.
const BETWEEN_POLLS: Duration = Duration::from_secs(2);

/// How long a coordinator may be away, as for a restart, before the wait is given up.
const PATIENCE: Duration = Duration::from_secs(120);

/// How a wait ended.
pub(crate) enum Ending {
    /// All tasks are done or given up.
    Finished(RequestStatus),
    /// The user pressed Ctrl-C.
    Interrupted,
}

/// Waits for the end of a request, and shows how far it is.
///
/// # Errors
/// When the coordinator refuses, or stays away.
pub(crate) async fn follow(client: &Client, id: Uuid) -> Result<Ending, ClientError> {
    let mut progress = Progress::new();
    let ending = tokio::select! {
        status = settled(client, id, &mut progress) => status.map(Ending::Finished),
        _ = tokio::signal::ctrl_c() => Ok(Ending::Interrupted),
    };
    progress.clear();
    ending
}

async fn settled(
    client: &Client,
    id: Uuid,
    progress: &mut Progress,
) -> Result<RequestStatus, ClientError> {
    match streamed(client, id, progress).await {
        Some(status) => Ok(status),
        None => polled(client, id, progress).await,
    }
}

/// The last state that the stream of events gives; None if it breaks before the request is finished.
async fn streamed(client: &Client, id: Uuid, progress: &mut Progress) -> Option<RequestStatus> {
    let mut response = client.get_raw(&format!("v1/requests/{id}/events")).await.ok()?;
    let mut events = Events::default();
    while let Some(bytes) = response.chunk().await.ok()? {
        for data in events.push(&bytes) {
            let status: RequestStatus = serde_json::from_str(&data).ok()?;
            progress.show(&status);
            if status.is_finished() {
                return Some(status);
            }
        }
    }
    None
}

async fn polled(
    client: &Client,
    id: Uuid,
    progress: &mut Progress,
) -> Result<RequestStatus, ClientError> {
    let mut answered = Instant::now();
    let mut complained = false;
    loop {
        match client.get::<RequestStatus>(&format!("v1/requests/{id}")).await {
            Ok(status) => {
                answered = Instant::now();
                complained = false;
                progress.show(&status);
                if status.is_finished() {
                    return Ok(status);
                }
            }
            Err(error) if error.is_transient() && answered.elapsed() < PATIENCE => {
                if !complained {
                    progress.say(&format!("{error}; asking again for two minutes"));
                    complained = true;
                }
            }
            Err(error) => return Err(error),
        }
        tokio::time::sleep(BETWEEN_POLLS).await;
    }
}
