//! `/v1/ops`: what can be measured, and new definitions.

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use latlas_shared::api::{OpAnswer, OpEntry, Page};
use ops_catalog::OpDef;

use super::access::{Reader, Researcher};
use super::error::ApiError;
use super::extract::{Body, Params};
use super::paging::Paging;
use crate::app::App;

pub fn router() -> Router<App> {
    Router::new().route("/ops", get(list).post(submit))
}

async fn list(
    _: Reader,
    State(app): State<App>,
    Params(paging): Params<Paging>,
) -> Result<Json<Page<OpEntry>>, ApiError> {
    Ok(Json(app.store().list_ops(&paging.after()?).await?))
}

/// 201 for a new definition, 200 for one that is known.
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
