//! `GET /v1/audit`: what people changed.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use latlas_shared::api::{AuditEntry, Page};

use super::access::Admin;
use super::error::ApiError;
use super::extract::Params;
use super::paging::Paging;
use crate::app::App;

pub fn router() -> Router<App> {
    Router::new().route("/audit", get(list))
}

async fn list(
    _: Admin,
    State(app): State<App>,
    Params(paging): Params<Paging>,
) -> Result<Json<Page<AuditEntry>>, ApiError> {
    Ok(Json(app.store().list_audit(&paging.after()?).await?))
}
