//! `/v1/ops`: what can be measured, and new definitions.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use latlas_shared::api::{OpAnswer, OpEntry, PROBLEM_JSON, Page, Problem};
use ops_catalog::OpDef;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::{Reader, Researcher};
use super::error::ApiError;
use super::extract::{Body, Params};
use super::paging::Paging;
use crate::app::App;

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, submit))
}

/// What names mean
#[utoipa::path(
    get,
    path = "/ops",
    tag = "ops",
    security((), ("token" = [])),
    params(Paging),
    responses((status = 200, description = "A page of ops", body = Page<OpEntry>))
)]
async fn list(
    _: Reader,
    State(app): State<App>,
    Params(paging): Params<Paging>,
) -> Result<Json<Page<OpEntry>>, ApiError> {
    Ok(Json(app.store().list_ops(&paging.after()?).await?))
}

/// Submit an op: a name means one definition, for good
#[utoipa::path(
    post,
    path = "/ops",
    tag = "ops",
    security(("token" = [])),
    request_body = OpDef,
    responses(
        (status = 201, description = "It is new", body = OpAnswer),
        (status = 200, description = "It is known", body = OpAnswer),
        (status = 409, description = "The name or the definition is taken", body = Problem, content_type = PROBLEM_JSON)
    )
)]
async fn submit(
    Researcher(actor): Researcher,
    State(app): State<App>,
    Body(def): Body<OpDef>,
) -> Result<(StatusCode, Json<OpAnswer>), ApiError> {
    let name = def.name.clone();
    let submission = app.store().submit_op(def, &actor, app.now()).await?;
    let status = if submission.new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(OpAnswer { name, digest: submission.digest })))
}
