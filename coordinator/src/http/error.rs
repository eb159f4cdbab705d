//! Every way in which a call fails, and the one place that turns them into answers.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use latlas_shared::api::{AGENT_CLONED, PROBLEM_JSON, Problem};

use crate::chain::Chain;
use crate::op_book::NotTaken;
use crate::rules::admission::BadField;
use crate::store::{Lookup, RequestError, StoreError, SubmitError};

/// Why a call failed. The texts are for the client; what must not leave the machine is in
/// [`ApiError::Internal`] only, and is logged instead.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The call can't be read: a malformed body, query or path.
    #[error("{0}")]
    Malformed(String),
    /// There is no token, or one that is not known.
    #[error("{0}")]
    Unauthorized(String),
    /// The token is good for something else.
    #[error("{0}")]
    Forbidden(String),
    /// There is no such route.
    #[error("{0}")]
    NoRoute(String),
    /// The route exists, and what it names does not.
    #[error("{0}")]
    NotFound(String),
    /// There is no agent of this class of device.
    #[error("{0}")]
    UnknownHardware(String),
    /// The class of device has no such run config.
    #[error("{0}")]
    UnknownConfig(String),
    /// The route has other methods.
    #[error("{0}")]
    MethodNotAllowed(String),
    /// It collides with what is there.
    #[error("{0}")]
    Conflict(String),
    /// Another process speaks for the same agent.
    #[error("{0}")]
    Cloned(String),
    /// The lease has ended.
    #[error("{0}")]
    LeaseLost(String),
    /// The body is larger than this route takes.
    #[error("{0}")]
    TooLarge(String),
    /// The body ended before it was complete.
    #[error("the body broke off: send it again")]
    BrokenOff,
    /// The body is not JSON.
    #[error("{0}")]
    MediaType(String),
    /// It can be read, and makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// A prediction lacks rows.
    #[error("{0}")]
    MissingRows(String),
    /// It came too soon after others.
    #[error("{cause}: wait as long as Retry-After says")]
    TooMany {
        /// Which limit it is.
        cause: &'static str,
        /// How long to wait.
        wait: Duration,
    },
    /// It took too long.
    #[error("the coordinator did not finish this call in time: try it again later")]
    Timeout,
    /// Too many are writing, or it is about to stop.
    #[error("the coordinator is busy or stopping: try it again in a moment")]
    Busy,
    /// Too many predictions with estimates are under way.
    #[error(
        "too many predictions with `\"missing\": \"interpolate\"` are under way: try again as soon as \
         Retry-After says, or download the table and run `latlas predict` on it"
    )]
    Estimating,
    /// A table has no version yet.
    #[error(
        "the first version of this table is still being put together: try again as soon as Retry-After says"
    )]
    Unfinished,
    /// There is no room for it.
    #[error(
        "the coordinator's disk is full, so nothing of this call was kept, and nothing that was \
         acknowledged before is lost: make room on the disk of its data directory and try again"
    )]
    DiskFull,
    /// The database's file can't be read or written.
    #[error(
        "the coordinator can't read or write its database, so nothing of this call was kept: look at its \
         log and at the file system of its data directory (read-only? a failing disk?), and try again"
    )]
    DiskTrouble,
    /// A bug, or a database in trouble.
    #[error("something went wrong in the coordinator; its log says what")]
    Internal(#[source] anyhow::Error),
}

impl ApiError {
    /// Status, kind and title.
    fn parts(&self) -> (StatusCode, &'static str, &'static str) {
        use ApiError as E;
        use StatusCode as S;
        match self {
            E::Malformed(_) => (S::BAD_REQUEST, "malformed", "The call can't be read"),
            E::Unauthorized(_) => (S::UNAUTHORIZED, "unauthorized", "A token is needed"),
            E::Forbidden(_) => (S::FORBIDDEN, "forbidden", "The token is not good for this"),
            E::NoRoute(_) => (S::NOT_FOUND, "no-such-route", "No such route"),
            E::NotFound(_) => (S::NOT_FOUND, "not-found", "Not found"),
            E::UnknownHardware(_) => (S::NOT_FOUND, "unknown-hardware", "Unknown hardware"),
            E::UnknownConfig(_) => (S::NOT_FOUND, "unknown-config", "Unknown run config"),
            E::MethodNotAllowed(_) => {
                (S::METHOD_NOT_ALLOWED, "method-not-allowed", "The route has other methods")
            }
            E::Conflict(_) => (S::CONFLICT, "conflict", "It collides with what is there"),
            E::Cloned(_) => (S::CONFLICT, AGENT_CLONED, "Another process speaks for this agent"),
            E::LeaseLost(_) => (S::CONFLICT, "lease-lost", "The lease has ended"),
            E::TooLarge(_) => (S::PAYLOAD_TOO_LARGE, "too-large", "The body is too large"),
            // Not 400, which means that the same call would fail again.
            E::BrokenOff => (S::REQUEST_TIMEOUT, "broken-off", "The call broke off"),
            E::MediaType(_) => (S::UNSUPPORTED_MEDIA_TYPE, "media-type", "The body is not JSON"),
            E::Invalid(_) => (S::UNPROCESSABLE_ENTITY, "invalid", "The content is not valid"),
            E::MissingRows(_) => (S::UNPROCESSABLE_ENTITY, "missing-rows", "Rows are missing"),
            E::TooMany { .. } => (S::TOO_MANY_REQUESTS, "too-many-requests", "Too many calls"),
            E::Timeout => (S::SERVICE_UNAVAILABLE, "timeout", "It took too long"),
            E::Busy => (S::SERVICE_UNAVAILABLE, "busy", "The coordinator is busy"),
            E::Estimating => (S::SERVICE_UNAVAILABLE, "busy", "Too many estimates"),
            E::Unfinished => (S::SERVICE_UNAVAILABLE, "unfinished", "The table is not ready yet"),
            E::DiskFull => (S::INSUFFICIENT_STORAGE, "disk-full", "The disk is full"),
            E::DiskTrouble => {
                (S::SERVICE_UNAVAILABLE, "disk-trouble", "The database can't be written")
            }
            E::Internal(_) => (S::INTERNAL_SERVER_ERROR, "internal", "An internal error"),
        }
    }

    /// The answer's body.
    pub fn problem(&self) -> Problem {
        let (status, kind, title) = self.parts();
        Problem {
            kind: format!("/problems/{kind}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: self.to_string(),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if let ApiError::Internal(cause) = &self {
            tracing::error!("internal error: {cause:#}");
        }
        let (status, _, _) = self.parts();
        let mut response = (status, Json(self.problem())).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        match status {
            StatusCode::TOO_MANY_REQUESTS => {
                if let ApiError::TooMany { wait, .. } = &self {
                    headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds(wait)));
                }
            }
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            // Only a person can free disk space, so the wait is longer.
            StatusCode::INSUFFICIENT_STORAGE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("30"));
            }
            _ => {}
        }
        response
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> ApiError {
        match error {
            StoreError::Busy(_) | StoreError::Collided => {
                tracing::warn!("{}", Chain(&error));
                ApiError::Busy
            }
            StoreError::Unfinished => ApiError::Unfinished,
            StoreError::Full(_) => {
                tracing::error!("{}", Chain(&error));
                ApiError::DiskFull
            }
            StoreError::Unusable(_) => {
                tracing::error!("{}", Chain(&error));
                ApiError::DiskTrouble
            }
            other => ApiError::Internal(other.into()),
        }
    }
}

impl From<BadField> for ApiError {
    fn from(error: BadField) -> ApiError {
        ApiError::Invalid(error.to_string())
    }
}

impl From<NotTaken> for ApiError {
    fn from(error: NotTaken) -> ApiError {
        match error {
            NotTaken::Invalid(invalid) => invalid.into(),
            NotTaken::Conflict(text) => ApiError::Conflict(text),
        }
    }
}

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> ApiError {
        match error {
            SubmitError::NotTaken(reason) => reason.into(),
            SubmitError::Store(error) => error.into(),
        }
    }
}

impl From<RequestError> for ApiError {
    fn from(error: RequestError) -> ApiError {
        match error {
            RequestError::Op(error) => error.into(),
            RequestError::Unsupported(ops) => ApiError::Invalid(format!(
                "no agent of this hardware and run config can run {}: install a newer agent on a box, or \
                 leave these out",
                ops.join(", ")
            )),
            RequestError::KeyReused => ApiError::Conflict(
                "this Idempotency-Key came before with another body: use a new key for a new request"
                    .into(),
            ),
        }
    }
}

impl From<ops_catalog::Invalid> for ApiError {
    fn from(invalid: ops_catalog::Invalid) -> ApiError {
        ApiError::Invalid(invalid.to_string())
    }
}

/// What a table was looked up by is in the message, cut to a sensible length.
pub fn lookup_error(hardware_id: &str, config: Option<&str>, error: Lookup) -> ApiError {
    let list = |known: Vec<String>| known.join(", ");
    match error {
        Lookup::UnknownHardware { known } if known.is_empty() => {
            ApiError::UnknownHardware(format!(
                "no agent of `{}` is enrolled, and no other one either: start `latlas-agent run` on a \
                 box with an enrol token",
                shown(hardware_id)
            ))
        }
        Lookup::UnknownHardware { known } => ApiError::UnknownHardware(format!(
            "no agent of `{}` is enrolled; there are agents of {}. To measure on another device, enrol \
             an agent on it",
            shown(hardware_id),
            list(known)
        )),
        Lookup::UnknownConfig { known } => ApiError::UnknownConfig(format!(
            "no agent of {hardware_id} measures under run config `{}`; there are {}",
            shown(config.unwrap_or_default()),
            list(known)
        )),
        Lookup::Store(error) => error.into(),
    }
}

/// Whole seconds that are long enough, as Retry-After has them.
fn seconds(wait: &Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

/// A client's text as a message repeats it.
pub fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(80).collect()
}
