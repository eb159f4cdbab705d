//! `GET /v1/farm`: the farm at one glance.

use axum::Json;
use axum::extract::State;
use latlas_shared::api::{FarmEntry, FarmIdentity, Page};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::Reader;
use super::error::ApiError;
use super::extract::Params;
use super::paging::Paging;
use crate::app::App;

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(identity))
}

/// Each class of device with its agents, queue and table
#[utoipa::path(
    get,
    path = "/farm",
    tag = "farm",
    security((), ("token" = [])),
    params(Paging),
    responses((status = 200, description = "A page of classes of devices", body = Page<FarmEntry>))
)]
async fn list(
    _: Reader,
    State(app): State<App>,
    Params(paging): Params<Paging>,
) -> Result<Json<Page<FarmEntry>>, ApiError> {
    Ok(Json(app.store().farm(&paging.after()?, app.now()).await?))
}

/// Which farm this is, whatever its address
///
/// Open to everybody: an agent asks before it sends its credential.
#[utoipa::path(
    get,
    path = "/farm/id",
    tag = "farm",
    responses((status = 200, description = "The farm's id", body = FarmIdentity))
)]
async fn identity(State(app): State<App>) -> Json<FarmIdentity> {
    Json(FarmIdentity { farm_id: app.store().farm_id() })
}
