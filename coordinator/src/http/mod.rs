//! The HTTP interface: one router per resource, and what holds for all of them.

mod access;
mod agents;
mod audit;
mod error;
mod etag;
mod events;
mod extract;
mod farm;
mod hardware;
mod health;
mod leases;
mod metrics;
mod openapi;
mod ops;
mod paging;
mod predict;
mod requests;
mod results;
mod tables;
mod tokens;

use std::any::Any;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{Method, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::trace::{DefaultOnResponse, TraceLayer};
use tracing::Level;
use utoipa_axum::router::OpenApiRouter;

use crate::app::App;
use error::{ApiError, shown};

pub use openapi::document as openapi;

/// Bodies are at most this large, except where a route says otherwise.
const BODY_LIMIT: usize = 2 << 20;

/// An answer is begun within this time; a long poll ends well before.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// All routes with their descriptions.
fn documented() -> OpenApiRouter<App> {
    let v1 = OpenApiRouter::new()
        .merge(agents::router())
        .merge(audit::router())
        .merge(events::router())
        .merge(farm::router())
        .merge(hardware::router())
        .merge(leases::router())
        .merge(ops::router())
        .merge(predict::router())
        .merge(requests::router())
        .merge(results::router())
        .merge(tables::router())
        .merge(tokens::router());
    OpenApiRouter::with_openapi(openapi::frame())
        .merge(health::router())
        .merge(metrics::router())
        .merge(openapi::router())
        .nest("/v1", v1)
}

/// All routes.
pub fn router(app: App) -> Router {
    let (router, _) = documented().split_for_parts();
    router
        .fallback(no_route)
        .method_not_allowed_fallback(other_method)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(middleware::from_fn(in_time))
        .layer(CatchPanicLayer::custom(|panic: Box<dyn Any + Send>| panicked(panic.as_ref())))
        .layer(CompressionLayer::new())
        .layer(middleware::map_response(etag::mark_encoding))
        .layer(
            TraceLayer::new_for_http()
                // Headers are left out because they contain tokens.
                .make_span_with(|request: &Request| {
                    tracing::info_span!("call", method = %request.method(), path = request.uri().path())
                })
                .on_response(DefaultOnResponse::new().level(Level::DEBUG))
                .on_failure(()),
        )
        .layer(middleware::from_fn_with_state(app.clone(), metrics::count))
        .with_state(app)
}

async fn no_route(uri: Uri) -> ApiError {
    ApiError::NoRoute(format!(
        "there is nothing at `{}`; the interface is under /v1, e.g. /v1/tables",
        shown(uri.path())
    ))
}

async fn other_method(method: Method, uri: Uri) -> ApiError {
    ApiError::MethodNotAllowed(format!(
        "`{}` has no method {method}; the Allow header has those that it has",
        shown(uri.path())
    ))
}

async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(ANSWER_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::Timeout.into_response(),
    }
}

fn panicked(panic: &(dyn Any + Send)) -> Response {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    ApiError::Internal(anyhow::anyhow!("a handler panicked: {text}")).into_response()
}
