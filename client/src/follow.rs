//! Follows a request until its state is final.

use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use jiff::Timestamp;
use latlas_shared::api::RequestStatus;
use uuid::Uuid;

use crate::{Client, ClientError, attendance};

/// Time between two polls when there is no stream of events.
const BETWEEN_POLLS: Duration = Duration::from_secs(2);

/// How long a coordinator may be unreachable, for example during a restart, before the wait ends.
const PATIENCE: Duration = Duration::from_secs(120);

/// The user is told if no task runs for this long although there are agents for the request.
const WAITS_LONG: Duration = Duration::from_secs(30);

/// How often the user is reminded that no agent works on the request.
const AGAIN: Duration = Duration::from_secs(60);

/// How long to wait for an event before the user is told how long there has been no event.
const BETWEEN_LOOKS: Duration = Duration::from_secs(15);

/// Where the progress of a request is shown.
pub trait Display {
    /// Shows how far it is.
    fn show(&mut self, status: &RequestStatus);

    /// Says something that the user should know while it waits.
    fn say(&mut self, text: &str);
}

/// Waits until all tasks of a request are done or failed, or it is cancelled, and shows its progress. Dropping the
/// future ends the wait and leaves the request as it is.
///
/// # Errors
/// When the coordinator refuses, or stays unreachable for two minutes.
pub async fn follow(
    client: &Client,
    status: &RequestStatus,
    display: &mut (dyn Display + Send),
) -> Result<RequestStatus, ClientError> {
    let mut watch = Watch::new(display);
    watch.attend(status);
    settled(client, status.id, &mut watch).await
}

/// What the user has seen so far.
struct Watch<'a> {
    display: &'a mut (dyn Display + Send),
    /// Since when no agent works on the request.
    idle_since: Option<Instant>,
    said: bool,
    /// The last state without an agent, and when the user was told.
    nobody: Option<(RequestStatus, Instant)>,
}

impl<'a> Watch<'a> {
    fn new(display: &'a mut (dyn Display + Send)) -> Watch<'a> {
        Watch { display, idle_since: None, said: false, nobody: None }
    }

    fn show(&mut self, status: &RequestStatus) {
        self.display.show(status);
        self.attend(status);
        if status.running > 0 || status.is_finished() || status.unattended.is_some() {
            (self.idle_since, self.said) = (None, false);
        } else {
            self.idle_since.get_or_insert_with(Instant::now);
        }
    }

    /// A request without agents looks like a slow measurement, so the user is told at once and at each change.
    fn attend(&mut self, status: &RequestStatus) {
        let is = status.unattended.as_ref().map(attendance::gist);
        let was = self.nobody.as_ref().and_then(|(last, _)| last.unattended.as_ref());
        if is == was.map(attendance::gist) {
            return;
        }
        match is {
            Some(_) => self.say_nobody(status.clone()),
            None => {
                self.nobody = None;
                if !status.is_finished() {
                    self.display.say("an agent takes its tasks again");
                }
            }
        }
    }

    fn say_nobody(&mut self, status: RequestStatus) {
        if let Some(text) = attendance::nobody(&status, Timestamp::now()) {
            self.display.say(&text);
        }
        self.nobody = Some((status, Instant::now()));
    }

    /// Reminds the user at intervals that no agent works on the request, and reports once that tasks wait long for
    /// their turn.
    fn look_around(&mut self) {
        if let Some((status, said_at)) = &self.nobody
            && said_at.elapsed() >= AGAIN
        {
            self.say_nobody(status.clone());
        }
        let idle = self.idle_since.is_some_and(|since| since.elapsed() >= WAITS_LONG);
        if idle && !self.said {
            self.said = true;
            self.display.say(
                "its tasks wait: the agents of this class are busy with other tasks, or cannot run these \
                 (`latlas farm status`)",
            );
        }
    }
}

async fn settled(
    client: &Client,
    id: Uuid,
    watch: &mut Watch<'_>,
) -> Result<RequestStatus, ClientError> {
    match streamed(client, id, watch).await {
        Some(status) => Ok(status),
        None => polled(client, id, watch).await,
    }
}

/// The last state from the stream of events; None if the stream breaks before the request is finished.
async fn streamed(client: &Client, id: Uuid, watch: &mut Watch<'_>) -> Option<RequestStatus> {
    let path = format!("v1/requests/{id}/events");
    let mut events = pin!(client.events(&path).await.ok()?);
    loop {
        let event = tokio::time::timeout(BETWEEN_LOOKS, events.next()).await;
        watch.look_around();
        let Ok(event) = event else { continue };
        let status: RequestStatus = serde_json::from_str(&event?.ok()?).ok()?;
        watch.show(&status);
        if status.is_finished() {
            return Some(status);
        }
    }
}

async fn polled(
    client: &Client,
    id: Uuid,
    watch: &mut Watch<'_>,
) -> Result<RequestStatus, ClientError> {
    let mut answered = Instant::now();
    let mut complained = false;
    loop {
        match client.get::<RequestStatus>(&format!("v1/requests/{id}")).await {
            Ok(status) => {
                answered = Instant::now();
                complained = false;
                watch.show(&status);
                watch.look_around();
                if status.is_finished() {
                    return Ok(status);
                }
            }
            Err(error) if error.is_transient() && answered.elapsed() < PATIENCE => {
                if !complained {
                    watch.display.say(&format!("{error}; asking again for two minutes"));
                    complained = true;
                }
            }
            Err(error) => return Err(error),
        }
        tokio::time::sleep(BETWEEN_POLLS).await;
    }
}
