//! `POST /v1/predict`: the latency of a network on one class of device.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use latlas_predict::{PredictError, Predictor, TableIndex};
use latlas_shared::api::{PROBLEM_JSON, PredictAnswer, PredictRequest, Problem};
use latlas_shared::{Missing, Table};
use ops_catalog::Network;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::Reader;
use super::error::{ApiError, lookup_error};
use super::extract::Body;
use super::tables::document;
use crate::app::App;
use crate::store::{Served, Version};

/// Indexes that are kept ready: a farm has few tables that are asked about at one time. What is learned for
/// estimates stays with them, up to 8 MB for an op.
const KEPT: usize = 8;

/// Predictions with estimates that work at one time: the first one of an op learns from its rows for some
/// seconds, on a processor of its own.
const ESTIMATING: usize = 2;

/// Predictions that wait for that; whoever comes then is told to come back.
const MOST_WAITING: usize = 64;

/// How long they wait.
const WAIT: Duration = Duration::from_secs(20);

/// The index of a version, made by the first who asks for it.
type Kept = Arc<OnceCell<Arc<TableIndex>>>;

/// What predictions share: the indexes of the versions that were asked about last, and the right to work on
/// estimates.
#[derive(Debug)]
pub struct Predictions {
    /// By version, the latest at the end.
    kept: Mutex<Vec<(String, Kept)>>,
    estimating: Arc<Semaphore>,
    waiting: Semaphore,
}

impl Default for Predictions {
    fn default() -> Predictions {
        Predictions {
            kept: Mutex::default(),
            estimating: Arc::new(Semaphore::new(ESTIMATING)),
            waiting: Semaphore::new(MOST_WAITING),
        }
    }
}

impl Predictions {
    fn index(&self, version: &str) -> Kept {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.iter().position(|(of, _)| of == version);
        let entry = at.map_or_else(|| (version.to_owned(), Kept::default()), |at| kept.remove(at));
        let index = Arc::clone(&entry.1);
        kept.push(entry);
        if kept.len() > KEPT {
            kept.remove(0);
        }
        index
    }

    /// The right to work on estimates, held until it is dropped.
    ///
    /// # Errors
    /// When too many wait for it already, or it takes too long.
    async fn may_estimate(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        let Ok(_waiting) = self.waiting.try_acquire() else { return Err(ApiError::Estimating) };
        let permit = Arc::clone(&self.estimating).acquire_owned();
        let permit = tokio::time::timeout(WAIT, permit).await.map_err(|_| ApiError::Estimating)?;
        permit.map_err(|e| ApiError::Internal(e.into()))
    }

    /// How often something was learned from the rows of a version that was asked about.
    #[cfg(test)]
    pub fn times_learned(&self, version: &str) -> usize {
        self.index(version).get().unwrap().times_learned()
    }

    /// Keeps estimates from being worked on for as long as this is held.
    #[cfg(test)]
    pub fn hold(&self) -> OwnedSemaphorePermit {
        let all = u32::try_from(ESTIMATING).unwrap();
        Arc::clone(&self.estimating).try_acquire_many_owned(all).unwrap()
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
    let Served { version, stale } = app.store().latest_version(&table, app.now()).await?;
    let index = index(&app, hardware_id, &version).await?;
    let permit = match request.missing {
        Missing::Error => None,
        Missing::Interpolate => Some(app.predictions().may_estimate().await?),
    };
    let work = tokio::task::spawn_blocking(move || {
        // Until the work ends, which it does not when its caller hangs up.
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
