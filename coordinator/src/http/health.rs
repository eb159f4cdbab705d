//! `GET /healthz` and `GET /readyz`: for whatever watches the process. Open to everybody.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::ApiError;
use crate::app::App;

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(health)).routes(routes!(ready))
}

/// The process lives
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "watching",
    responses((status = 200, description = "It lives", body = serde_json::Value))
)]
async fn health() -> Json<Value> {
    Json(json!({"status": "ok", "version": env!("CARGO_PKG_VERSION")}))
}

/// The database answers, and no shutdown has begun
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "watching",
    responses((status = 200, description = "It takes calls. Tables can be read even when the disk is full, so that does not show here", body = serde_json::Value))
)]
async fn ready(State(app): State<App>) -> Result<Json<Value>, ApiError> {
    if app.is_stopping() {
        return Err(ApiError::Busy);
    }
    app.store().check().await?;
    Ok(Json(json!({"status": "ready"})))
}
