//! `GET /v1/requests/{id}/events`: the progress of a request as server-sent events.
//!
//! Each event's data is a `RequestStatus`: `progress` now and at each change, also of who is there to work on it,
//! and `finished` or `cancelled` as the last. A stream that ends without one of these was cut off, and can be
//! opened again.

use std::convert::Infallible;
use std::sync::{Arc, Weak};
use std::time::Duration;

use axum::extract::State;
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use futures_util::{Stream, stream};
use latlas_shared::api::RequestStatus;
use tokio::sync::watch;
use tokio::time::Instant;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::access::Reader;
use super::error::ApiError;
use super::extract::Segments;
use super::requests::status;
use crate::app::App;
use crate::chain::Chain;
use crate::watched::Requests;

/// The shortest time between two events: many results a second are one change to a person.
const SHORTEST_GAP: Duration = Duration::from_millis(200);

/// A status that takes long to read is read less often: this many times what it took lies between two.
const GAP_PER_READ: u32 = 10;

/// A status is read again after this time even if nothing announced a change.
const LONGEST_GAP: Duration = Duration::from_secs(10);

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(stream))
}

/// The progress of a request
///
/// Events `progress` at each change and `finished` or `cancelled` at the end, each with a `RequestStatus` as its data.
#[utoipa::path(
    get,
    path = "/requests/{id}/events",
    tag = "requests",
    security((), ("token" = [])),
    params(("id" = Uuid, Path, description = "The request")),
    responses((status = 200, description = "Server-sent events", body = String, content_type = "text/event-stream"))
)]
async fn stream(
    _: Reader,
    State(app): State<App>,
    Segments(id): Segments<Uuid>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    let statuses = subscribe(&app, id).await?;
    let stopping = Box::pin(async move { app.stopping().await });
    let events = stream::unfold((statuses, stopping), |(mut statuses, mut stopping)| async move {
        let now = tokio::select! {
            biased;
            () = &mut stopping => return None,
            now = next(&mut statuses) => now?,
        };
        let name = match (&now.cancelled, now.is_finished()) {
            (Some(_), _) => "cancelled",
            (None, true) => "finished",
            (None, false) => "progress",
        };
        let event = Event::default().event(name).json_data(&now).ok()?;
        Some((Ok(event), (statuses, stopping)))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

/// The next status; none after the last one.
async fn next(statuses: &mut watch::Receiver<RequestStatus>) -> Option<RequestStatus> {
    statuses.changed().await.ok()?;
    Some(statuses.borrow_and_update().clone())
}

/// The statuses of a request from now on, the present one included. An unknown id is an error, and not a stream
/// without events.
async fn subscribe(app: &App, id: Uuid) -> Result<watch::Receiver<RequestStatus>, ApiError> {
    let listen = |requests: &Requests| {
        let mut statuses = requests.get(&id).and_then(Weak::upgrade)?.subscribe();
        statuses.mark_changed();
        Some(statuses)
    };
    if let Some(statuses) = listen(&app.watched().requests()) {
        return Ok(statuses);
    }
    let changes = app.store().progress();
    let now = status(app, id).await?;
    let mut requests = app.watched().requests();
    // Another stream may have started the task in the meantime.
    if let Some(statuses) = listen(&requests) {
        return Ok(statuses);
    }
    let is_finished = now.is_finished();
    let (sender, mut statuses) = watch::channel(now);
    statuses.mark_changed();
    if !is_finished {
        let sender = Arc::new(sender);
        requests.insert(id, Arc::downgrade(&sender));
        tokio::spawn(follow(app.clone(), id, sender, changes));
    }
    Ok(statuses)
}

/// Reads the status of a request at each change, until it is finished or nobody watches it any more.
async fn follow(
    app: App,
    id: Uuid,
    sender: Arc<watch::Sender<RequestStatus>>,
    mut changes: watch::Receiver<()>,
) {
    let mut gap = SHORTEST_GAP;
    loop {
        tokio::select! {
            () = async {
                tokio::time::sleep(gap).await;
                // The sender lives as long as the store, so the result is either a change or the time-out.
                let _ = tokio::time::timeout(LONGEST_GAP, changes.changed()).await;
            } => {}
            () = sender.closed() => {}
            () = app.stopping() => {}
        }
        let mut requests = app.watched().requests();
        // The lock is held, so nobody subscribes to a channel that ends here.
        if sender.receiver_count() == 0 || app.is_stopping() {
            requests.remove(&id);
            return;
        }
        drop(requests);
        let turn = app.watched().reading.lock().await;
        changes.mark_unchanged();
        let started = Instant::now();
        let now = status(&app, id).await;
        drop(turn);
        gap = (started.elapsed() * GAP_PER_READ).clamp(SHORTEST_GAP, LONGEST_GAP);
        match now {
            Ok(now) => {
                sender.send_if_modified(|last| {
                    let is_new = *last != now;
                    last.clone_from(&now);
                    is_new
                });
                if now.is_finished() {
                    app.watched().requests().remove(&id);
                    return;
                }
            }
            Err(error) => {
                tracing::error!(request = %id, "the event streams of a request end: {}", Chain(&error));
                app.watched().requests().remove(&id);
                return;
            }
        }
    }
}
