//! `POST /v1/predict`: the latency of a network on one class of device.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use latlas_predict::{PredictError, Predictor, TableIndex};
use latlas_shared::api::{PROBLEM_JSON, PredictAnswer, PredictRequest, Problem};
use latlas_shared::{Missing, Table};
use ops_catalog::Network;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::Reader;
use super::error::{ApiError, lookup_error};
use super::extract::Body;
use super::tables::document;
use crate::app::App;
use crate::store::{Served, Version};

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(predict))
}

/// What a network costs on a class of devices
#[utoipa::path(
    post,
    path = "/predict",
    tag = "tables",
    security((), ("token" = [])),
    request_body = PredictRequest,
    responses(
        (status = 200, description = "The prediction", body = PredictAnswer),
        (status = 404, description = "There is no such hardware or run config", body = Problem, content_type = PROBLEM_JSON)
    )
)]
async fn predict(
    _: Reader,
    State(app): State<App>,
    Body(request): Body<PredictRequest>,
) -> Result<Json<PredictAnswer>, ApiError> {
    let (hardware_id, config) = (request.hardware_id.as_str(), request.config.as_deref());
    let table = app.store().table(hardware_id, config).await;
    let table = table.map_err(|error| lookup_error(hardware_id, config, error))?;
    let Served { version, stale } = app.store().latest_version(&table, app.now()).await?;
    let index = index(&app, hardware_id, &version).await?;
    let permit = match request.missing {
        Missing::Error => None,
        Missing::Interpolate => {
            Some(app.predictions().may_estimate().await.ok_or(ApiError::Estimating)?)
        }
    };
    let work = tokio::task::spawn_blocking(move || {
        // Held until the work ends, also when the caller disconnects.
        let _permit = permit;
        let network = Network::new(&request.network, index.catalog())?;
        Predictor::new(index, request.missing).predict(&network)
    });
    let prediction = work.await.map_err(|e| ApiError::Internal(e.into()))?;
    let prediction = prediction.map_err(|error| match error {
        PredictError::Network(invalid) => ApiError::from(invalid),
        missing @ PredictError::Missing(_) => ApiError::MissingRows(missing.to_string()),
    })?;
    Ok(Json(PredictAnswer {
        hardware_id: table.hardware_id,
        config: table.run_config.id(),
        version: version.version,
        stale,
        prediction,
    }))
}

/// The index of a version. Those who ask for one that is being made wait for it.
async fn index(
    app: &App,
    hardware_id: &str,
    version: &Version,
) -> Result<Arc<TableIndex>, ApiError> {
    let kept = app.predictions().index(&version.version);
    let make = async || {
        let document = document(app, hardware_id, version).await?;
        let work = tokio::task::spawn_blocking(move || {
            let table: Table = serde_json::from_slice(&document)?;
            anyhow::Ok(Arc::new(TableIndex::new(table)?))
        });
        work.await.map_err(|e| ApiError::Internal(e.into()))?.map_err(ApiError::Internal)
    };
    kept.get_or_try_init(make).await.cloned()
}
