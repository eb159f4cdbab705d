//! `/v1/tokens`: who may do what, and taking that back. Tokens are made on the coordinator's own command
//! line only, so that a stolen admin token can't make others that outlive it.

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use latlas_shared::api::{Page, TokenEntry};

use super::access::Admin;
use super::error::ApiError;
use super::extract::{Params, Segments};
use super::paging::Paging;
use crate::app::App;

pub fn router() -> Router<App> {
    Router::new().route("/tokens", get(list)).route("/tokens/{id}/revoke", post(revoke))
}

async fn list(
    _: Admin,
    State(app): State<App>,
    Params(paging): Params<Paging>,
) -> Result<Json<Page<TokenEntry>>, ApiError> {
    Ok(Json(app.store().list_tokens(&paging.after()?).await?))
}

async fn revoke(
    Admin(actor): Admin,
    State(app): State<App>,
    Segments(id): Segments<i64>,
) -> Result<Json<TokenEntry>, ApiError> {
    let revoked = app.store().revoke_token(id, &actor, app.now()).await?;
    let entry = revoked.ok_or_else(|| {
        ApiError::NotFound(format!("there is no token {id}; GET /v1/tokens lists them"))
    })?;
    tracing::info!(token = id, role = entry.role, "revoked");
    Ok(Json(entry))
}
