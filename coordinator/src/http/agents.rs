//! `/v1/agents`: enrolment, heartbeats, and the list of agents.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::Timestamp;
use latlas_shared::api::{
    AgentChange, AgentEntry, AgentState, EnrolRequest, Enrolled, Heartbeat, Instance, Orders,
    PROBLEM_JSON, Page, Problem, StateChange,
};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::access::{self, Access, Admin, Enroller, Reader, Worker};
use super::error::ApiError;
use super::extract::{Body, Params, Segments};
use super::paging::Paging;
use crate::app::App;
use crate::rules::admission::{check_change, check_enrolment, check_heartbeat};
use crate::rules::presence::SILENT_AFTER;
use crate::store::{Agent, ChangeError, EnrolError};
use crate::token::{Role, Token};

/// The most bytes of a reason.
const MOST_REASON: usize = 500;

/// The most bytes of a boot id: a UUID has 36.
const MOST_BOOT_ID: usize = 64;

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, enrol))
        .routes(routes!(heartbeat))
        .routes(routes!(set_state))
        .routes(routes!(change, remove))
}

/// Enrolled agents
#[utoipa::path(
    get,
    path = "/agents",
    tag = "farm",
    security((), ("token" = [])),
    params(Paging),
    responses((status = 200, description = "A page of agents", body = Page<AgentEntry>))
)]
async fn list(
    _: Reader,
    State(app): State<App>,
    Params(paging): Params<Paging>,
) -> Result<Json<Page<AgentEntry>>, ApiError> {
    Ok(Json(app.store().list_agents(&paging.after()?, app.now()).await?))
}

/// Enrol an agent, with an enrol token
#[utoipa::path(
    post,
    path = "/agents",
    tag = "agents",
    security(("token" = [])),
    request_body = EnrolRequest,
    responses((status = 201, description = "Its identity and credential", body = Enrolled))
)]
async fn enrol(
    Enroller(actor): Enroller,
    State(app): State<App>,
    Body(request): Body<EnrolRequest>,
) -> Result<(StatusCode, Json<Enrolled>), ApiError> {
    check_enrolment(&request)?;
    check_instance(request.instance.as_ref())?;
    let credential =
        Token::generate(Role::Agent).map_err(|e| ApiError::Internal(anyhow::Error::msg(e)))?;
    let agent = app.store().enrol(&request, &credential, &actor, app.now()).await?;
    tracing::info!(agent = %agent.uuid, name = agent.name, hardware = %agent.table.hardware_id, "enrolled");
    let enrolled = Enrolled {
        agent_id: agent.uuid,
        credential: credential.reveal().to_owned(),
        hardware_id: agent.table.hardware_id,
        farm_id: app.store().farm_id(),
    };
    Ok((StatusCode::CREATED, Json(enrolled)))
}

/// A sign of life, answered with orders
#[utoipa::path(
    put,
    path = "/agents/{id}/heartbeat",
    tag = "agents",
    security(("token" = [])),
    params(("id" = Uuid, Path, description = "The agent itself")),
    request_body = Heartbeat,
    responses(
        (status = 200, description = "What it is to do", body = Orders),
        (status = 409, description = "Another process speaks with this credential", body = Problem, content_type = PROBLEM_JSON)
    )
)]
async fn heartbeat(
    Worker(agent): Worker,
    State(app): State<App>,
    Segments(id): Segments<Uuid>,
    Body(beat): Body<Heartbeat>,
) -> Result<Json<Orders>, ApiError> {
    itself(&agent, id)?;
    check_heartbeat(&beat)?;
    let now = app.now();
    not_cloned(&app, &agent, beat.instance.as_ref(), now)?;
    if let Some(reason) = &beat.leaving {
        app.store().goodbye(&agent, reason, now).await?;
        tracing::info!(agent = %agent.uuid, name = agent.name, reason, "stopped");
        return Ok(Json(Orders { cancelled_leases: beat.leases, ..Orders::default() }));
    }
    let cancelled_leases =
        app.store().heartbeat(&agent, &beat.leases, &beat.telemetry, now).await?;
    app.store().note(&agent, &beat, &cancelled_leases, now);
    let StateChange { state, reason } = app.store().decided(&agent).await?;
    Ok(Json(Orders { cancelled_leases, state, reason }))
}

/// Set the state of an agent, with an admin's token
#[utoipa::path(
    put,
    path = "/agents/{id}/state",
    tag = "farm",
    security(("token" = [])),
    params(("id" = Uuid, Path, description = "The agent")),
    request_body = StateChange,
    responses((status = 200, description = "The agent as it is now", body = AgentEntry))
)]
async fn set_state(
    Admin(actor): Admin,
    State(app): State<App>,
    Segments(id): Segments<Uuid>,
    Body(mut change): Body<StateChange>,
) -> Result<Json<AgentEntry>, ApiError> {
    change.reason = change.reason.map(|text| text.trim().to_owned()).filter(|t| !t.is_empty());
    match &change.reason {
        None if change.state != AgentState::Active => {
            return Err(ApiError::Invalid(
                "reason: say why, for whoever looks at the farm later".into(),
            ));
        }
        Some(reason) if reason.len() > MOST_REASON || reason.chars().any(char::is_control) => {
            return Err(ApiError::Invalid(format!(
                "reason: at most {MOST_REASON} bytes on one line"
            )));
        }
        _ => {}
    }
    let entry = app.store().set_state(id, &change, &actor, app.now()).await?;
    let entry = entry.ok_or_else(|| no_agent(id))?;
    tracing::info!(agent = %id, name = entry.name, state = %change.state, reason = change.reason.as_deref(), "an admin set a state");
    Ok(Json(entry))
}

/// Name or label an agent, with an admin's token
#[utoipa::path(
    patch,
    path = "/agents/{id}",
    tag = "farm",
    security(("token" = [])),
    params(("id" = Uuid, Path, description = "The agent")),
    request_body = AgentChange,
    responses(
        (status = 200, description = "The agent as it is now", body = AgentEntry),
        (status = 409, description = "Another agent has this name", body = Problem, content_type = PROBLEM_JSON)
    )
)]
async fn change(
    Admin(actor): Admin,
    State(app): State<App>,
    Segments(id): Segments<Uuid>,
    Body(change): Body<AgentChange>,
) -> Result<Json<AgentEntry>, ApiError> {
    check_change(&change)?;
    let changed = app.store().change_agent(id, &change, &actor, app.now()).await;
    changed.map(Json).map_err(|error| match error {
        ChangeError::Missing => no_agent(id),
        ChangeError::Taken(_) => ApiError::Conflict(format!("{error}: choose another name")),
        ChangeError::TooMany => ApiError::Invalid(format!("labels: {error}")),
        ChangeError::Store(error) => error.into(),
    })
}

/// Remove an agent from the farm, with an admin's token
///
/// Its credential is revoked and its leases end. Its measurements stay in the tables, and no list shows it any
/// more.
#[utoipa::path(
    delete,
    path = "/agents/{id}",
    tag = "farm",
    security(("token" = [])),
    params(("id" = Uuid, Path, description = "The agent")),
    responses((status = 204, description = "It is out"))
)]
async fn remove(
    Admin(actor): Admin,
    State(app): State<App>,
    Segments(id): Segments<Uuid>,
) -> Result<StatusCode, ApiError> {
    if !app.store().remove_agent(id, &actor, app.now()).await? {
        return Err(no_agent(id));
    }
    tracing::info!(agent = %id, "removed");
    Ok(StatusCode::NO_CONTENT)
}

fn no_agent(id: Uuid) -> ApiError {
    ApiError::NotFound(format!("there is no agent {id}; GET /v1/agents lists them"))
}

/// Refuses a second process that has an agent's credential. An agent that does not say which process
/// it is can't be told from another.
pub fn not_cloned(
    app: &App,
    agent: &Agent,
    speaker: Option<&Instance>,
    now: Timestamp,
) -> Result<(), ApiError> {
    let Some(speaker) = speaker else { return Ok(()) };
    check_instance(Some(speaker))?;
    app.store().hear(agent, speaker, now).map_err(|heard_at| {
        let ago = now.duration_since(heard_at).as_secs();
        tracing::warn!(agent = %agent.uuid, name = agent.name, "a second process uses the credential of an agent");
        ApiError::Cloned(format!(
            "another process spoke as agent {} ({}) {ago} s ago. If this box was set up from a copy of \
             another one's disk or state directory, remove the state directory here (`rm -r STATE`) and \
             enrol it anew with --enroll-token-file. If the agent was only moved or its box started again, try \
             again in {} s",
            agent.uuid,
            agent.name,
            SILENT_AFTER.as_secs()
        ))
    })
}

fn check_instance(instance: Option<&Instance>) -> Result<(), ApiError> {
    if instance.is_some_and(|instance| instance.boot_id.len() > MOST_BOOT_ID) {
        return Err(ApiError::Invalid(format!("instance.boot_id: at most {MOST_BOOT_ID} bytes")));
    }
    Ok(())
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

impl From<EnrolError> for ApiError {
    fn from(error: EnrolError) -> ApiError {
        match error {
            EnrolError::TokenEnded => access::ended(Access::Enrol),
            EnrolError::Store(error) => error.into(),
        }
    }
}
