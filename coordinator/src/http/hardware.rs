//! `GET /v1/hardware`: the classes of devices of the farm.

use axum::Json;
use axum::extract::State;
use latlas_shared::api::{HardwareEntry, Page};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::Reader;
use super::error::ApiError;
use super::extract::Params;
use super::paging::Paging;
use crate::app::App;

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list))
}

/// Classes of devices
#[utoipa::path(
    get,
    path = "/hardware",
    tag = "farm",
    security((), ("token" = [])),
    params(Paging),
    responses((status = 200, description = "A page of classes of devices", body = Page<HardwareEntry>))
)]
async fn list(
    _: Reader,
    State(app): State<App>,
    Params(paging): Params<Paging>,
) -> Result<Json<Page<HardwareEntry>>, ApiError> {
    Ok(Json(app.store().list_hardware(&paging.after()?).await?))
}
