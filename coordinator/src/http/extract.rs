//! Extractors whose refusals are problem documents like every other error.

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use hyper::body::Body as _;
use serde::de::DeserializeOwned;

use super::error::ApiError;

/// A JSON body.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        match Json::<T>::from_request(request, state).await {
            Ok(Json(value)) => Ok(Body(value)),
            Err(rejection) => Err(body_error(&rejection)),
        }
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

fn body_error(rejection: &JsonRejection) -> ApiError {
    let text = innermost(rejection);
    match rejection {
        JsonRejection::JsonDataError(_) => ApiError::Invalid(format!("the body: {text}")),
        JsonRejection::JsonSyntaxError(_) => {
            ApiError::Malformed(format!("the body is not JSON: {text}"))
        }
        JsonRejection::MissingJsonContentType(_) => ApiError::MediaType(
            "send the body as JSON, with the header `Content-Type: application/json`".into(),
        ),
        other if other.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            ApiError::TooLarge("the body is larger than this route takes: send less at once".into())
        }
        _ => ApiError::BrokenOff,
    }
}

/// The outer layers of a rejection repeat what the problem's title says.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// The query.
pub struct Params<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query: Result<Query<T>, QueryRejection> = Query::from_request_parts(parts, state).await;
        match query {
            Ok(Query(value)) => Ok(Params(value)),
            Err(rejection) => {
                Err(ApiError::Malformed(format!("the query: {}", innermost(&rejection))))
            }
        }
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
                Err(ApiError::Malformed(format!("the path: {}", innermost(&rejection))))
            }
        }
    }
}
