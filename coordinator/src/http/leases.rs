//! Leases: `POST /v1/agents/{id}/leases`, `POST /v1/leases/{id}/renew` and `/release`.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use latlas_shared::api::{Lease, LeaseAnswer, LeaseRequest, Renewed};
use tokio::time::Instant;
use uuid::Uuid;

use super::access::Worker;
use super::agents::{itself, not_cloned};
use super::error::ApiError;
use super::extract::{Body, Segments};
use crate::app::App;
use crate::store::Agent;

/// The longest long poll, in seconds.
const LONGEST_WAIT: u32 = 30;

pub fn router() -> Router<App> {
    Router::new()
        .route("/agents/{id}/leases", post(lease))
        .route("/leases/{id}/renew", post(renew))
        .route("/leases/{id}/release", post(release))
}

async fn lease(
    Worker(agent): Worker,
    State(app): State<App>,
    Segments(id): Segments<Uuid>,
    Body(request): Body<LeaseRequest>,
) -> Result<Json<LeaseAnswer>, ApiError> {
    itself(&agent, id)?;
    if request.max_tasks == 0 {
        return Err(ApiError::Invalid("max_tasks: at least 1".into()));
    }
    not_cloned(&app, &agent, request.instance.as_ref(), app.now())?;
    let wait = Duration::from_secs(request.wait_seconds.min(LONGEST_WAIT).into());
    let lease = wait_for_lease(&app, &agent, request.max_tasks, Instant::now() + wait).await?;
    Ok(Json(LeaseAnswer { lease }))
}

/// Sleeps until there may be work, and never asks twice for nothing.
async fn wait_for_lease(
    app: &App,
    agent: &Agent,
    max_tasks: u32,
    until: Instant,
) -> Result<Option<Lease>, ApiError> {
    loop {
        let mut work = std::pin::pin!(app.store().work().notified());
        // Before looking, so that what comes after the look wakes it.
        work.as_mut().enable();
        // In a box, since thousands of polls that only wait would all keep room for the look.
        let lease = Box::pin(app.store().lease(agent, max_tasks, app.now())).await?;
        if lease.is_some() {
            return Ok(lease);
        }
        tokio::select! {
            () = work => {}
            () = tokio::time::sleep_until(until) => return Ok(None),
            () = app.stopping() => return Ok(None),
        }
    }
}

async fn renew(
    Worker(agent): Worker,
    State(app): State<App>,
    Segments(id): Segments<Uuid>,
) -> Result<Json<Renewed>, ApiError> {
    let deadline = app.store().renew(&agent, id, app.now()).await?;
    deadline.map(|deadline| Json(Renewed { deadline })).ok_or_else(|| lost(id))
}

async fn release(
    Worker(agent): Worker,
    State(app): State<App>,
    Segments(id): Segments<Uuid>,
) -> Result<StatusCode, ApiError> {
    if app.store().release(&agent, id, app.now()).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(lost(id))
}

fn lost(id: Uuid) -> ApiError {
    ApiError::LeaseLost(format!(
        "lease {id} is not this agent's or has ended: drop its tasks; results that are measured already \
         are welcome"
    ))
}
