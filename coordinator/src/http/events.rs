//! `GET /v1/requests/{id}/events`: the progress of a request as server-sent events.
//!
//! Each event's data is a `RequestStatus`: `progress` now and at each change, also of who is there to work on it,
//! and `finished` or `cancelled` as the last. A stream that ends without one of these was cut off, and can be
//! opened again.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use futures_util::{Stream, stream};
use latlas_shared::api::RequestStatus;
use tokio::sync::watch;
use uuid::Uuid;

use super::access::Reader;
use super::error::ApiError;
use super::extract::Segments;
use super::requests::status;
use crate::app::App;

/// The shortest time between two events: many results a second are one change to a person.
const SHORTEST_GAP: Duration = Duration::from_millis(200);

/// A status is read again after this time even if nothing announced a change.
const LONGEST_GAP: Duration = Duration::from_secs(10);

struct Progress {
    app: App,
    id: Uuid,
    changes: watch::Receiver<()>,
    last: Option<RequestStatus>,
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
pub async fn stream(
    _: Reader,
    State(app): State<App>,
    Segments(id): Segments<Uuid>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    let changes = app.store().progress();
    // An unknown id is an answer of its own, and not an empty stream.
    status(&app, id).await?;
    let progress = Progress { app, id, changes, last: None };
    let events = stream::unfold(progress, |mut progress| async move {
        let event = progress.next().await?;
        Some((Ok(event), progress))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

impl Progress {
    /// The next event; none at the end.
    async fn next(&mut self) -> Option<Event> {
        if self.last.as_ref().is_some_and(RequestStatus::is_finished) {
            return None;
        }
        loop {
            if self.app.is_stopping() {
                return None;
            }
            self.changes.mark_unchanged();
            let now = match status(&self.app, self.id).await {
                Ok(now) => now,
                Err(error) => {
                    tracing::error!(request = %self.id, "a stream of events ends: {error}");
                    return None;
                }
            };
            if self.last.as_ref() != Some(&now) {
                let name = match (&now.cancelled, now.is_finished()) {
                    (Some(_), _) => "cancelled",
                    (None, true) => "finished",
                    (None, false) => "progress",
                };
                let event = Event::default().event(name).json_data(&now).ok();
                self.last = Some(now);
                return event;
            }
            self.wait().await;
        }
    }

    async fn wait(&mut self) {
        let stopping = self.app.stopping();
        tokio::select! {
            () = async {
                tokio::time::sleep(SHORTEST_GAP).await;
                // The sender lives as long as the store, so this is a change or the time-out.
                let _ = tokio::time::timeout(LONGEST_GAP, self.changes.changed()).await;
            } => {}
            () = stopping => {}
        }
    }
}
