//! `GET /v1/farm`: the farm at one glance.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use latlas_shared::api::{FarmEntry, Page};

use super::access::Reader;
use super::error::ApiError;
use super::extract::Params;
use super::paging::Paging;
use crate::app::App;

pub fn router() -> Router<App> {
    Router::new().route("/farm", get(list))
}

async fn list(
    _: Reader,
    State(app): State<App>,
    Params(paging): Params<Paging>,
) -> Result<Json<Page<FarmEntry>>, ApiError> {
    Ok(Json(app.store().farm(&paging.after()?, app.now()).await?))
}
