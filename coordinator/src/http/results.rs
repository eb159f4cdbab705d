//! `POST /v1/results`: measurements come in.

use axum::Json;
use axum::extract::{DefaultBodyLimit, State};
use jiff::Timestamp;
use latlas_shared::api::{Instance, PROBLEM_JSON, Problem, Results, ResultsAnswer};
use ops_catalog::text;
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::access::Worker;
use super::agents::not_cloned;
use super::error::ApiError;
use super::extract::Body;
use crate::app::App;
use crate::store::{Incoming, Refusal};

/// The most measurements of one call.
const MOST: usize = 1000;

/// The largest body: a thousand measurements with long curves.
const BODY_LIMIT: usize = 16 << 20;

/// [`latlas_shared::api::Results`], with each measurement still as text: one that can't be read is
/// refused alone.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawResults {
    measurements: Vec<Box<RawValue>>,
    #[serde(default)]
    instance: Option<Instance>,
    #[serde(default)]
    clock: Option<Timestamp>,
}

/// What even a measurement that can't be read must have, so that its refusal can be addressed, and what
/// helps to say which task it was for.
#[derive(Deserialize)]
struct OnlyId {
    id: Uuid,
    #[serde(default)]
    task: Option<i64>,
}

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(results)).layer(DefaultBodyLimit::max(BODY_LIMIT))
}

/// Send measurements
#[utoipa::path(
    post,
    path = "/results",
    tag = "agents",
    security(("token" = [])),
    request_body = Results,
    responses(
        (status = 200, description = "After the commit", body = ResultsAnswer),
        (status = 409, description = "Another process speaks with this credential", body = Problem, content_type = PROBLEM_JSON)
    )
)]
async fn results(
    Worker(agent): Worker,
    State(app): State<App>,
    Body(RawResults { measurements, instance, clock }): Body<RawResults>,
) -> Result<Json<ResultsAnswer>, ApiError> {
    if measurements.len() > MOST {
        return Err(ApiError::TooLarge(format!(
            "there are {} measurements, and one call takes at most {MOST}",
            measurements.len()
        )));
    }
    let now = app.now();
    not_cloned(&app, &agent, instance.as_ref(), now)?;
    // A thousand measurements keep a processor busy for longer than other calls should wait.
    let read = tokio::task::spawn_blocking(move || read(&measurements)).await;
    let incoming = Incoming { clock, ..read.map_err(|e| ApiError::Internal(e.into()))?? };
    let answer = app.store().add_results(&agent, incoming, now).await?;
    app.metrics().results(answer.stored, answer.known, answer.refused.len());
    Ok(Json(answer))
}

fn read(measurements: &[Box<RawValue>]) -> Result<Incoming, ApiError> {
    let mut incoming = Incoming::default();
    for (index, raw) in measurements.iter().enumerate() {
        match text::read_json(raw.get()) {
            Ok(measurement) => incoming.measurements.push(measurement),
            Err(error) => {
                let OnlyId { id, task } = serde_json::from_str(raw.get()).map_err(|_| {
                    ApiError::Invalid(format!("measurements[{index}] can't be read: {error}"))
                })?;
                let reason = format!("it can't be read: {error}");
                incoming.unreadable.push(Refusal { id, task, reason });
            }
        }
    }
    Ok(incoming)
}
