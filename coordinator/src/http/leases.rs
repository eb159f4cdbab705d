//! Leases: `POST /v1/agents/{id}/leases`, `POST /v1/leases/{id}/renew` and `/release`.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use latlas_shared::api::{
    Lease, LeaseAnswer, LeaseCall, LeaseRequest, PROBLEM_JSON, Problem, Renewed,
};
use tokio::time::Instant;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::access::Worker;
use super::agents::{itself, not_cloned};
use super::error::ApiError;
use super::extract::{Body, BodyOrNone, Segments};
use crate::app::App;
use crate::store::Agent;

/// The longest long poll, in seconds.
const LONGEST_WAIT: u32 = 30;

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(lease)).routes(routes!(renew)).routes(routes!(release))
}

/// Wait for tasks
#[utoipa::path(
    post,
    path = "/agents/{id}/leases",
    tag = "agents",
    security(("token" = [])),
    params(("id" = Uuid, Path, description = "The agent itself")),
    request_body = LeaseRequest,
    responses(
        (status = 200, description = "A lease, or null when there was no task in time", body = LeaseAnswer),
        (status = 409, description = "Another process speaks with this credential", body = Problem, content_type = PROBLEM_JSON)
    )
)]
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
    let now = app.now();
    not_cloned(&app, &agent, request.instance.as_ref(), now)?;
    // Noted once, not for the whole wait: only the next call shows whether the agent is still alive.
    app.store().has_called(&agent, now);
    let wait = Duration::from_secs(request.wait_seconds.min(LONGEST_WAIT).into());
    let id = request.lease_id.unwrap_or_else(Uuid::new_v4);
    if request.lease_id.is_some()
        && let Some(lease) = app.store().lease_again(&agent, id, app.now()).await?
    {
        return Ok(Json(LeaseAnswer { lease: Some(lease) }));
    }
    let until = Instant::now() + wait;
    let lease = wait_for_lease(&app, &agent, id, request.max_tasks, until).await?;
    Ok(Json(LeaseAnswer { lease }))
}

/// Sleeps until there may be work, and never asks twice for nothing.
async fn wait_for_lease(
    app: &App,
    agent: &Agent,
    id: Uuid,
    max_tasks: u32,
    until: Instant,
) -> Result<Option<Lease>, ApiError> {
    let waiting = app.store().wait_for_work(agent);
    loop {
        // On the heap: otherwise each of thousands of waiting polls would reserve memory for the query.
        let lease = Box::pin(app.store().lease(agent, id, max_tasks, app.now())).await?;
        if lease.is_some() {
            return Ok(lease);
        }
        tokio::select! {
            () = waiting.rung() => {}
            () = tokio::time::sleep_until(until) => return Ok(None),
            () = app.stopping() => return Ok(None),
        }
    }
}

/// Keep a lease
#[utoipa::path(
    post,
    path = "/leases/{id}/renew",
    tag = "agents",
    security(("token" = [])),
    params(("id" = Uuid, Path, description = "The lease")),
    request_body = Option<LeaseCall>,
    responses(
        (status = 200, description = "The new deadline", body = Renewed),
        (status = 409, description = "The lease has ended: drop its tasks", body = Problem, content_type = PROBLEM_JSON)
    )
)]
async fn renew(
    Worker(agent): Worker,
    State(app): State<App>,
    Segments(id): Segments<Uuid>,
    BodyOrNone(call): BodyOrNone<LeaseCall>,
) -> Result<Json<Renewed>, ApiError> {
    let now = app.now();
    not_cloned(&app, &agent, call.instance.as_ref(), now)?;
    let deadline = app.store().renew(&agent, id, now).await?;
    deadline.map(|deadline| Json(Renewed { deadline })).ok_or_else(|| lost(id))
}

/// Give a lease back
#[utoipa::path(
    post,
    path = "/leases/{id}/release",
    tag = "agents",
    security(("token" = [])),
    params(("id" = Uuid, Path, description = "The lease")),
    request_body = Option<LeaseCall>,
    responses(
        (status = 204, description = "Its unmeasured tasks wait again, and no attempt is counted"),
        (status = 409, description = "The lease has ended", body = Problem, content_type = PROBLEM_JSON)
    )
)]
async fn release(
    Worker(agent): Worker,
    State(app): State<App>,
    Segments(id): Segments<Uuid>,
    BodyOrNone(call): BodyOrNone<LeaseCall>,
) -> Result<StatusCode, ApiError> {
    let now = app.now();
    not_cloned(&app, &agent, call.instance.as_ref(), now)?;
    if app.store().release(&agent, id, now).await? {
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
