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

/// How long nobody may work on a request before that is said.
const UNATTENDED: Duration = Duration::from_secs(30);

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
    let mut watch = Watch { progress: Progress::new(), idle_since: None, said: false };
    let ending = tokio::select! {
        status = settled(client, id, &mut watch) => status.map(Ending::Finished),
        _ = tokio::signal::ctrl_c() => Ok(Ending::Interrupted),
    };
    watch.progress.clear();
    ending
}

/// What the user has seen so far.
struct Watch {
    progress: Progress,
    /// Since when no agent works on it.
    idle_since: Option<Instant>,
    said: bool,
}

impl Watch {
    fn show(&mut self, status: &RequestStatus) {
        self.progress.show(status);
        if status.running > 0 || status.is_finished() {
            (self.idle_since, self.said) = (None, false);
        } else {
            self.idle_since.get_or_insert_with(Instant::now);
        }
    }

    /// A wait for nobody looks like a slow measurement, so it is said, once.
    fn look_around(&mut self) {
        let idle = self.idle_since.is_some_and(|since| since.elapsed() >= UNATTENDED);
        if idle && !self.said {
            self.said = true;
            self.progress.say(
                "no agent works on it: is `latlas-agent run` running on a device of this class?",
            );
        }
    }
}

async fn settled(
    client: &Client,
    id: Uuid,
    watch: &mut Watch,
) -> Result<RequestStatus, ClientError> {
    match streamed(client, id, watch).await {
        Some(status) => Ok(status),
        None => polled(client, id, watch).await,
    }
}

/// The last state that the stream of events gives; None if it breaks before the request is finished.
async fn streamed(client: &Client, id: Uuid, watch: &mut Watch) -> Option<RequestStatus> {
    let mut response = client.get_raw(&format!("v1/requests/{id}/events")).await.ok()?;
    let mut events = Events::default();
    // Comments that keep the connection alive come every 15 seconds or so.
    while let Some(bytes) = response.chunk().await.ok()? {
        watch.look_around();
        for data in events.push(&bytes) {
            let status: RequestStatus = serde_json::from_str(&data).ok()?;
            watch.show(&status);
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
    watch: &mut Watch,
) -> Result<RequestStatus, ClientError> {
    let mut answered = Instant::now();
    let mut complained = false;
    loop {
        match client.get::<RequestStatus>(&format!("v1/requests/{id}")).await {
            Ok(status) => {
                answered = Instant::now();
                complained = false;
                watch.show(&status);
                if status.is_finished() {
                    return Ok(status);
                }
            }
            Err(error) if error.is_transient() && answered.elapsed() < PATIENCE => {
                if !complained {
                    watch.progress.say(&format!("{error}; asking again for two minutes"));
                    complained = true;
                }
            }
            Err(error) => return Err(error),
        }
        tokio::time::sleep(BETWEEN_POLLS).await;
    }
}
