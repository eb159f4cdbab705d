//! `GET /healthz` and `GET /readyz`: for whatever watches the process. Open to everybody.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::error::ApiError;
use crate::app::App;

pub fn router() -> Router<App> {
    Router::new().route("/healthz", get(health)).route("/readyz", get(ready))
}

/// The process lives.
async fn health() -> Json<Value> {
    Json(json!({"status": "ok", "version": env!("CARGO_PKG_VERSION")}))
}

/// The database answers, and no shutdown has begun.
async fn ready(State(app): State<App>) -> Result<Json<Value>, ApiError> {
    if app.is_stopping() {
        return Err(ApiError::Busy);
    }
    app.store().check().await?;
    Ok(Json(json!({"status": "ready"})))
}
