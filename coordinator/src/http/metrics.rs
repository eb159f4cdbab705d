//! `GET /metrics`: numbers for Prometheus, open to whoever may read.

use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::Reader;
use super::error::ApiError;
use crate::app::App;

/// The format of the answer.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(metrics))
}

/// What the coordinator counts, in the OpenMetrics text format
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "watching",
    security((), ("token" = [])),
    responses((status = 200, content_type = "application/openmetrics-text", body = String))
)]
async fn metrics(_: Reader, State(app): State<App>) -> Result<Response, ApiError> {
    let now = app.now();
    let counts = app.store().farm_counts(now).await?;
    let text = app.metrics().text(&counts, now);
    Ok(([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response())
}

/// Counts every call under the route that it matched.
pub async fn count(State(app): State<App>, request: Request, next: Next) -> Response {
    let method = known(request.method());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let begun = Instant::now();
    let response = next.run(request).await;
    // Unmatched paths are arbitrary text of the client, and each would become a label.
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    app.metrics().answered(method, route, response.status().as_u16(), begun.elapsed());
    response
}

/// A method that some route has; clients may send any word.
fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}
