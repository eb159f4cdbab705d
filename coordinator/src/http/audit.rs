//! `GET /v1/audit`: what people changed.

use axum::Json;
use axum::extract::State;
use latlas_shared::api::{AuditEntry, Page};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::Admin;
use super::error::ApiError;
use super::extract::Params;
use super::paging::Paging;
use crate::app::App;

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list))
}

/// What people changed, with an admin's token
#[utoipa::path(
    get,
    path = "/audit",
    tag = "access",
    security(("token" = [])),
    params(Paging),
    responses((status = 200, description = "A page of changes", body = Page<AuditEntry>))
)]
async fn list(
    _: Admin,
    State(app): State<App>,
    Params(paging): Params<Paging>,
) -> Result<Json<Page<AuditEntry>>, ApiError> {
    Ok(Json(app.store().list_audit(&paging.after()?).await?))
}
