//! `/v1/agents`: enrolling boxes, their heartbeats, and the list of them.

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, put};
use axum::{Json, Router};
use latlas_shared::api::{AgentEntry, EnrolRequest, Enrolled, Heartbeat, Orders, Page};
use uuid::Uuid;

use super::access::{Enroller, Reader, Worker};
use super::error::ApiError;
use super::extract::{Body, Params, Segments};
use super::paging::Paging;
use crate::admission::check_enrolment;
use crate::app::App;
use crate::store::Agent;
use crate::token::{Role, Token};

/// The most leases that a heartbeat lists.
const MOST_LEASES: usize = 1000;

pub fn router() -> Router<App> {
    Router::new()
        .route("/agents", get(list).post(enrol))
        .route("/agents/{id}/heartbeat", put(heartbeat))
}

async fn list(
    _: Reader,
    State(app): State<App>,
    Params(paging): Params<Paging>,
) -> Result<Json<Page<AgentEntry>>, ApiError> {
    Ok(Json(app.store().list_agents(&paging.after()?).await?))
}

async fn enrol(
    _: Enroller,
    State(app): State<App>,
    Body(request): Body<EnrolRequest>,
) -> Result<(StatusCode, Json<Enrolled>), ApiError> {
    check_enrolment(&request).map_err(ApiError::Invalid)?;
    let credential =
        Token::generate(Role::Agent).map_err(|e| ApiError::Internal(anyhow::Error::msg(e)))?;
    let agent = app.store().enrol(&request, &credential, app.now()).await?;
    tracing::info!(agent = %agent.uuid, name = agent.name, hardware = %agent.table.hardware_id, "enrolled");
    let enrolled = Enrolled {
        agent_id: agent.uuid,
        credential: credential.reveal().to_owned(),
        hardware_id: agent.table.hardware_id,
    };
    Ok((StatusCode::CREATED, Json(enrolled)))
}

async fn heartbeat(
    Worker(agent): Worker,
    State(app): State<App>,
    Segments(id): Segments<Uuid>,
    Body(beat): Body<Heartbeat>,
) -> Result<Json<Orders>, ApiError> {
    itself(&agent, id)?;
    if beat.leases.len() > MOST_LEASES {
        return Err(ApiError::Invalid(format!("leases: at most {MOST_LEASES}")));
    }
    let now = app.now();
    let cancelled_leases =
        app.store().heartbeat(&agent, &beat.leases, &beat.telemetry, now).await?;
    Ok(Json(Orders { cancelled_leases }))
}

/// An agent speaks for itself only.
pub fn itself(agent: &Agent, id: Uuid) -> Result<(), ApiError> {
    if agent.uuid == id {
        return Ok(());
    }
    Err(ApiError::Forbidden(format!(
        "this credential is agent {}'s, and the path has another",
        agent.uuid
    )))
}
