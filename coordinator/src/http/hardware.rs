//! `GET /v1/hardware`: the classes of devices of the farm.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use latlas_shared::api::{HardwareEntry, Page};

use super::access::Reader;
use super::error::ApiError;
use super::extract::Params;
use super::paging::Paging;
use crate::app::App;

pub fn router() -> Router<App> {
    Router::new().route("/hardware", get(list))
}

async fn list(
    _: Reader,
    State(app): State<App>,
    Params(paging): Params<Paging>,
) -> Result<Json<Page<HardwareEntry>>, ApiError> {
    Ok(Json(app.store().list_hardware(&paging.after()?).await?))
}
