//! `/v1/tables`: the tables, their versions, and their formats.

use axum::Json;
use axum::body::Body as Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{AppendHeaders, IntoResponse, Response};
use latlas_shared::api::{PROBLEM_JSON, Page, Problem, STALE, Stale, TableEntry};
use latlas_shared::{MeasuredNetwork, Table};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::Reader;
use super::error::{ApiError, lookup_error, shown};
use super::etag;
use super::extract::{Params, Segments};
use super::paging::Paging;
use crate::app::App;
use crate::export::{self, Format};
use crate::store::{Served, Version};

/// The latest table changes: ask every time, and get a 304 when it has not.
const REVALIDATE: &str = "no-cache";

/// A version never changes.
const FOR_EVER: &str = "max-age=31536000, immutable";

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(latest))
        .routes(routes!(networks))
        .routes(routes!(version))
}

/// Tables and their latest versions
#[utoipa::path(
    get,
    path = "/tables",
    tag = "tables",
    security((), ("token" = [])),
    params(Paging),
    responses((status = 200, description = "A page of tables", body = Page<TableEntry>))
)]
async fn list(
    _: Reader,
    State(app): State<App>,
    Params(paging): Params<Paging>,
) -> Result<Json<Page<TableEntry>>, ApiError> {
    Ok(Json(app.store().list_tables(&paging.after()?, app.now()).await?))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct LatestQuery {
    /// Id of the run config; the hardware's default when not given.
    config: Option<String>,
    /// Format: `json` unless given.
    #[param(pattern = "^(json|ndjson|csv)$")]
    format: Option<String>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct VersionQuery {
    /// Format: `json` unless given.
    #[param(pattern = "^(json|ndjson|csv)$")]
    format: Option<String>,
}

/// The latest version of a table
#[utoipa::path(
    get,
    path = "/tables/{hardware_id}",
    tag = "tables",
    security((), ("token" = [])),
    params(("hardware_id" = String, Path, description = "The class of devices"), LatestQuery),
    responses(
        (status = 200, description = "The table", headers(
            ("ETag" = String),
            ("Latlas-Stale" = Stale, description = "Why this version lacks stored measurements; absent when it has them all")
        ), content(
            (Table = "application/json"),
            (String = "application/x-ndjson"),
            (String = "text/csv")
        )),
        (status = 304, description = "The client has it already"),
        (status = 507, description = "The table has no version yet, and the coordinator's disk is full", body = Problem, content_type = PROBLEM_JSON)
    )
)]
async fn latest(
    _: Reader,
    State(app): State<App>,
    Segments(hardware_id): Segments<String>,
    Params(query): Params<LatestQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let format = format(query.format.as_deref())?;
    let config = query.config.as_deref();
    let table = app.store().table(&hardware_id, config).await;
    let table = table.map_err(|error| lookup_error(&hardware_id, config, error))?;
    let Served { version, stale } = app.store().latest_version(&table, app.now()).await?;
    let answer = answer(&app, &hardware_id, &version, format, &headers, REVALIDATE).await?;
    Ok((stale_header(stale), answer).into_response())
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct NetworksQuery {
    /// Id of the run config; the hardware's default when not given.
    config: Option<String>,
}

/// The networks that the latest table is held against, with their definitions
#[utoipa::path(
    get,
    path = "/tables/{hardware_id}/networks",
    tag = "tables",
    security((), ("token" = [])),
    params(("hardware_id" = String, Path, description = "The class of devices"), NetworksQuery),
    responses((status = 200, description = "A `MeasuredNetwork` a line", body = MeasuredNetwork, content_type = "application/x-ndjson", headers(
        ("Latlas-Stale" = Stale, description = "Why stored measurements are lacking; absent when none are")
    )))
)]
async fn networks(
    _: Reader,
    State(app): State<App>,
    Segments(hardware_id): Segments<String>,
    Params(query): Params<NetworksQuery>,
) -> Result<Response, ApiError> {
    let config = query.config.as_deref();
    let table = app.store().table(&hardware_id, config).await;
    let table = table.map_err(|error| lookup_error(&hardware_id, config, error))?;
    let mut lines = Vec::new();
    let (measured, stale) = app.store().measured_networks(&table).await?;
    for network in measured {
        serde_json::to_writer(&mut lines, &network).map_err(|e| ApiError::Internal(e.into()))?;
        lines.push(b'\n');
    }
    let content_type = (header::CONTENT_TYPE, Format::Ndjson.media_type().to_owned());
    let caching = (header::CACHE_CONTROL, REVALIDATE.to_owned());
    Ok((stale_header(stale), [caching, content_type], Bytes::from(lines)).into_response())
}

/// A version, which never changes; of old versions only some are kept
#[utoipa::path(
    get,
    path = "/tables/{hardware_id}/versions/{version}",
    tag = "tables",
    security((), ("token" = [])),
    params(("hardware_id" = String, Path, description = "The class of devices"), ("version" = String, Path, description = "The version"), VersionQuery),
    responses(
        (status = 200, description = "The table", headers(("ETag" = String)), content(
            (Table = "application/json"),
            (String = "application/x-ndjson"),
            (String = "text/csv")
        )),
        (status = 304, description = "The client has it already")
    )
)]
async fn version(
    _: Reader,
    State(app): State<App>,
    Segments((hardware_id, version)): Segments<(String, String)>,
    Params(query): Params<VersionQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let format = format(query.format.as_deref())?;
    if let Some(found) = app.store().version(&hardware_id, &version).await? {
        return answer(&app, &hardware_id, &found, format, &headers, FOR_EVER).await;
    }
    app.store()
        .table(&hardware_id, None)
        .await
        .map_err(|error| lookup_error(&hardware_id, None, error))?;
    Err(not_kept(&hardware_id, &version))
}

fn not_kept(hardware_id: &str, version: &str) -> ApiError {
    ApiError::NotFound(format!(
        "there is no version `{}` of a table of {hardware_id}: it was never served, or it is no longer kept, \
         since of old versions only some are. GET /v1/tables has the latest ones; a table that was downloaded \
         stays usable",
        shown(version)
    ))
}

/// The JSON document of a version that was found a moment ago.
///
/// # Errors
/// When it has been dropped since, or the store fails.
pub async fn document(
    app: &App,
    hardware_id: &str,
    version: &Version,
) -> Result<Vec<u8>, ApiError> {
    let document = app.store().document(&version.version).await?;
    document.ok_or_else(|| not_kept(hardware_id, &version.version))
}

/// Says that an answer lacks stored measurements, and why.
fn stale_header(stale: Option<Stale>) -> AppendHeaders<Option<(&'static str, &'static str)>> {
    AppendHeaders(stale.map(|stale| (STALE, stale.name())))
}

fn format(name: Option<&str>) -> Result<Format, ApiError> {
    match name {
        None => Ok(Format::default()),
        Some(name) => shown(name)
            .parse()
            .map_err(|problem| ApiError::Malformed(format!("the query, format: {problem}"))),
    }
}

async fn answer(
    app: &App,
    hardware_id: &str,
    version: &Version,
    format: Format,
    headers: &HeaderMap,
    caching: &'static str,
) -> Result<Response, ApiError> {
    let tag = etag::of_version(&version.version, format.name());
    let caching = (header::CACHE_CONTROL, caching.to_owned());
    if let Some(tag) = etag::known(headers, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag), caching]).into_response());
    }
    let document = document(app, hardware_id, version).await?;
    let work = tokio::task::spawn_blocking(move || export::write(document, format));
    let body = work.await.map_err(|e| ApiError::Internal(e.into()))?.map_err(ApiError::Internal)?;
    let content_type = (header::CONTENT_TYPE, format.media_type().to_owned());
    Ok(([(header::ETAG, tag), caching, content_type], Bytes::from(body)).into_response())
}
