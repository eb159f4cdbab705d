//! `/v1/tokens`: who may do what, and taking that back. Tokens are made on the coordinator's own command
//! line only, so that a stolen admin token can't make others that outlive it.

use axum::Json;
use axum::extract::State;
use latlas_shared::api::{Page, TokenEntry};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::Admin;
use super::error::ApiError;
use super::extract::{Params, Segments};
use super::paging::Paging;
use crate::app::App;

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(revoke))
}

/// All tokens without their secrets, with an admin's token
#[utoipa::path(
    get,
    path = "/tokens",
    tag = "access",
    security(("token" = [])),
    params(Paging),
    responses((status = 200, description = "A page of tokens", body = Page<TokenEntry>))
)]
async fn list(
    _: Admin,
    State(app): State<App>,
    Params(paging): Params<Paging>,
) -> Result<Json<Page<TokenEntry>>, ApiError> {
    Ok(Json(app.store().list_tokens(&paging.after()?).await?))
}

/// End a token, with an admin's token
#[utoipa::path(
    post,
    path = "/tokens/{id}/revoke",
    tag = "access",
    security(("token" = [])),
    params(("id" = i64, Path, description = "The token's number")),
    responses((status = 200, description = "The token as it is now", body = TokenEntry))
)]
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
