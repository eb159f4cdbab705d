//! `GET /openapi.json`: the interface, described by the code that serves it.
//!
//! Each handler carries its description, and a route is made of both together. What holds for many of
//! them, such as problem documents, is added here by rule.

use std::sync::LazyLock;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use latlas_shared::api::{PROBLEM_JSON, Problem};
use utoipa::openapi::path::{Operation, ParameterIn, PathItem};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Components, Content, Ref, RefOr, ResponseBuilder};
use utoipa::{OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::documented;
use crate::app::App;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Latlas coordinator",
        description = "Latency tables of hardware, and the farm that measures them",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")
    ),
    tags(
        (name = "tables", description = "Latency tables, and predictions from them"),
        (name = "requests", description = "Asking for measurements"),
        (name = "ops", description = "What can be measured"),
        (name = "farm", description = "Which devices there are"),
        (name = "agents", description = "What agents call"),
        (name = "access", description = "Who may do what, and what was done"),
        (name = "watching", description = "For whatever watches the process")
    ),
    components(schemas(Problem))
)]
struct Frame;

/// The document without its routes.
pub fn frame() -> utoipa::openapi::OpenApi {
    let mut frame = Frame::openapi();
    frame.info.version = env!("CARGO_PKG_VERSION").to_owned();
    frame.info.contact = None;
    let token = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some(
            "A token of a role, as `latlas-coordinator token create` prints it, or an agent's credential",
        ))
        .build();
    let components = frame.components.get_or_insert_with(Components::new);
    components.add_security_scheme("token", SecurityScheme::Http(token));
    frame
}

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(openapi))
}

/// This document
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "watching",
    responses((status = 200, description = "An OpenAPI document", body = serde_json::Value))
)]
async fn openapi() -> Response {
    static DOCUMENT: LazyLock<String> = LazyLock::new(document);
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT.as_str()).into_response()
}

/// The interface of the coordinator as an OpenAPI document.
pub fn document() -> String {
    let (_, mut document) = documented().split_for_parts();
    for path in document.paths.paths.values_mut() {
        for (operation, writes) in operations(path) {
            add_problems(operation, writes);
        }
    }
    document.to_pretty_json().expect("plain data serializes to JSON") + "\n"
}

/// The operations of a path, and whether each may change something.
fn operations(path: &mut PathItem) -> impl Iterator<Item = (&mut Operation, bool)> {
    let all = [
        (&mut path.get, false),
        (&mut path.put, true),
        (&mut path.post, true),
        (&mut path.patch, true),
        (&mut path.delete, true),
    ];
    all.into_iter().filter_map(|(operation, writes)| Some((operation.as_mut()?, writes)))
}

/// The errors that a call can always come to, by what it takes.
fn add_problems(operation: &mut Operation, writes: bool) {
    let parameters = operation.parameters.as_deref().unwrap_or_default();
    let in_path = parameters
        .iter()
        .any(|p| matches!(p, RefOr::T(parameter) if parameter.parameter_in == ParameterIn::Path));
    let others = !parameters.is_empty();
    let body = operation.request_body.is_some();
    let token = operation.security.is_some();
    for (status, when, why) in [
        ("400", others || body, "A body, path, query or header can't be read"),
        ("401", token, "There is no token, or an unknown one"),
        ("403", token, "The token is good for something else"),
        ("404", in_path, "What the path names is not there"),
        ("413", body, "The body is too large"),
        ("415", body, "The body lacks `Content-Type: application/json`"),
        ("422", body, "It can be read, and makes no sense"),
        ("429", token, "The token calls too often: try again after `Retry-After`"),
        ("500", true, "A bug or a broken database"),
        ("503", true, "Busy or stopping: try again after `Retry-After`"),
        ("507", writes, "The coordinator's disk is full: nothing of the call was kept"),
    ] {
        if when && !operation.responses.responses.contains_key(status) {
            let problem = Content::new(Some(Ref::from_schema_name(Problem::name())));
            let response =
                ResponseBuilder::new().description(why).content(PROBLEM_JSON, problem).build();
            operation.responses.responses.insert(status.to_owned(), response.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;

    fn here(path: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
    }

    #[test]
    fn the_checked_in_document_is_what_the_code_says() {
        let kept = fs::read_to_string(here("../docs/openapi.json")).unwrap_or_default();
        assert!(
            kept == document(),
            "docs/openapi.json is out of date: look at what changed after\n  \
             cargo run -p latlas_coordinator -- openapi > docs/openapi.json"
        );
    }

    /// A route that is added as one of axum's would be missing in the document.
    #[test]
    fn no_route_is_without_a_description() {
        for entry in fs::read_dir(here("src/http")).unwrap() {
            let path = entry.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            let mark = [".rou", "te("].concat();
            assert!(!text.contains(&mark), "{}: use routes!(handler)", path.display());
        }
    }

    #[test]
    fn every_call_says_what_can_go_wrong() {
        let document: serde_json::Value = serde_json::from_str(&document()).unwrap();
        let paths = document["paths"].as_object().unwrap();
        for path in ["/healthz", "/metrics", "/v1/results", "/v1/requests/{id}/events"] {
            assert!(paths.contains_key(path), "{path}");
        }
        for (path, operations) in paths {
            for (method, operation) in operations.as_object().unwrap() {
                assert!(operation["responses"]["500"].is_object(), "{method} {path}");
            }
        }
        let answers = &document["paths"]["/v1/leases/{id}/renew"]["post"]["responses"];
        for status in ["200", "400", "401", "403", "404", "409", "429", "500", "503"] {
            assert!(answers[status].is_object(), "{status}");
        }
        let schema = &answers["503"]["content"]["application/problem+json"]["schema"];
        assert_eq!(schema["$ref"], "#/components/schemas/Problem");
    }
}
