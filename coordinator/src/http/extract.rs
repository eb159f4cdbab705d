//! Extractors whose refusals are problem documents like every other error.

use std::fmt::Display;

use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use hyper::body::Body as _;
use ops_catalog::text::Tree;
use serde::de::DeserializeOwned;

use super::error::{ApiError, shown};

/// A JSON body.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        if !is_json(request.headers()) {
            return Err(ApiError::MediaType(
                "send the body as JSON, with the header `Content-Type: application/json`".into(),
            ));
        }
        let body =
            Bytes::from_request(request, state).await.map_err(|rejection| {
                match rejection.status() {
                    StatusCode::PAYLOAD_TOO_LARGE => ApiError::TooLarge(
                        "the body is larger than this route takes: send less at once".into(),
                    ),
                    _ => ApiError::BrokenOff,
                }
            })?;
        // The tree is used for other input than plain JSON of the expected form, and for error
        // messages.
        serde_json::from_slice(&body).map(Body).or_else(|_| read(&body).map(Body))
    }
}

/// A JSON body, or the default where there is none.
pub struct BodyOrNone<T>(pub T);

impl<T: DeserializeOwned + Default, S: Send + Sync> FromRequest<S> for BodyOrNone<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        if request.body().is_end_stream() {
            return Ok(BodyOrNone(T::default()));
        }
        Ok(BodyOrNone(Body::from_request(request, state).await?.0))
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let malformed = |problem: &dyn Display| ApiError::Malformed(format!("the body: {problem}"));
    let body = str::from_utf8(body).map_err(|_| malformed(&"it is not UTF-8"))?;
    let tree = Tree::json(body).map_err(|problem| malformed(&problem))?;
    tree.read().map_err(|problem| ApiError::Invalid(format!("the body: {problem}")))
}

/// The query.
pub struct Params<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let malformed =
            |problem: &dyn Display| ApiError::Malformed(format!("the query: {problem}"));
        let pairs = Query::<Vec<(String, String)>>::from_request_parts(parts, state).await;
        let Query(pairs) = pairs.map_err(|_| malformed(&"it is not `name=value&name=value`"))?;
        Tree::of_texts(pairs).read().map(Params).map_err(|problem| malformed(&problem))
    }
}

/// Segments of the path.
pub struct Segments<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Segments<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path: Result<Path<T>, PathRejection> = Path::from_request_parts(parts, state).await;
        match path {
            Ok(Path(value)) => Ok(Segments(value)),
            Err(rejection) => {
                Err(ApiError::Malformed(format!("the path: {}", not_found(&rejection))))
            }
        }
    }
}

/// A segment that is not what the route takes there.
fn not_found(rejection: &PathRejection) -> String {
    use axum::extract::path::ErrorKind::{DeserializeError, ParseError, ParseErrorAtKey};
    let value = match rejection {
        PathRejection::FailedToDeserializePathParams(failed) => match failed.kind() {
            ParseError { value, .. }
            | ParseErrorAtKey { value, .. }
            | DeserializeError { value, .. } => value.as_str(),
            _ => "",
        },
        _ => "",
    };
    format!("`{}` is not an id as the lists of this interface have them", shown(value))
}
