//! `POST /v1/predict`: the latency of a network on one class of device.

use std::sync::{Arc, Mutex, PoisonError};

use axum::Json;
use axum::extract::State;
use latlas_shared::api::{PROBLEM_JSON, PredictAnswer, PredictRequest, Problem};
use latlas_shared::{PredictError, Predictor, Table, TableIndex};
use ops_catalog::Network;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::Reader;
use super::error::{ApiError, lookup_error};
use super::extract::Body;
use crate::app::App;
use crate::store::Version;

/// Indexes that are kept ready: a farm has few tables that are asked about at one time.
const KEPT: usize = 8;

/// The indexes of the versions that were asked about last, the latest at the end.
#[derive(Debug, Default)]
pub struct IndexCache {
    kept: Mutex<Vec<Arc<TableIndex>>>,
}

impl IndexCache {
    fn get(&self, version: &str) -> Option<Arc<TableIndex>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.iter().position(|index| index.table().version == version)?;
        let index = kept.remove(at);
        kept.push(Arc::clone(&index));
        Some(index)
    }

    fn put(&self, index: Arc<TableIndex>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|other| other.table().version != index.table().version);
        kept.push(index);
        if kept.len() > KEPT {
            kept.remove(0);
        }
    }
}

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
    let version = app.store().latest_version(&table, app.now()).await?;
    let index = index(&app, &version).await?;
    let work = tokio::task::spawn_blocking(move || {
        let network = Network::new(&request.network, index.catalog())?;
        Predictor::new(&index, request.missing).predict(&network)
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
        prediction,
    }))
}

async fn index(app: &App, version: &Version) -> Result<Arc<TableIndex>, ApiError> {
    if let Some(index) = app.indexes().get(&version.version) {
        return Ok(index);
    }
    let document = app.store().document(&version.version).await?;
    let work = tokio::task::spawn_blocking(move || {
        let table: Table = serde_json::from_slice(&document)?;
        anyhow::Ok(Arc::new(TableIndex::new(table)?))
    });
    let index =
        work.await.map_err(|e| ApiError::Internal(e.into()))?.map_err(ApiError::Internal)?;
    app.indexes().put(Arc::clone(&index));
    Ok(index)
}
