//! `/v1/requests`: asking for measurements.

use std::collections::HashSet;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use latlas_predict::profile_order;
use latlas_shared::WholeNetwork;
use latlas_shared::api::{
    MOST_CALIBRATION_NETWORKS, NetworkChoice, PROBLEM_JSON, Page, Problem, ProfileRequest,
    RequestStatus,
};
use ops_catalog::{CALIBRATION_SEED, Catalog, Invalid, OpDef, OpDigest, OpKey, Space, SpaceDef};
use sha2::{Digest, Sha256};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::access::{Reader, Requester, Researcher};
use super::error::{ApiError, lookup_error};
use super::extract::{Body, Params, Segments};
use super::paging::Paging;
use crate::app::App;
use crate::store::{Actor, CancelError, NewRequest};

/// The most networks of one request: each is spelled out.
const MOST_NETWORKS: usize = 1000;

/// The most ops that come with one request: each is checked, and makes a new catalog.
const MOST_OPS: usize = 100;

/// The most networks of one request that make a sustained run: each takes its box for twelve minutes.
const MOST_SUSTAINED: usize = 3;

/// How long a sustained run lasts, in seconds.
const SUSTAINED_SECONDS: u32 = 600;

/// The longest idempotency key, in bytes.
const LONGEST_IDEMPOTENCY_KEY: usize = 200;

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(show)).routes(routes!(cancel))
}

/// All requests
#[utoipa::path(
    get,
    path = "/requests",
    tag = "requests",
    security((), ("token" = [])),
    params(Paging),
    responses((status = 200, description = "A page of requests, the newest first", body = Page<RequestStatus>))
)]
async fn list(
    _: Reader,
    State(app): State<App>,
    Params(paging): Params<Paging>,
) -> Result<Json<Page<RequestStatus>>, ApiError> {
    Ok(Json(app.store().list_requests(&paging.after()?, app.now()).await?))
}

/// One request
#[utoipa::path(
    get,
    path = "/requests/{id}",
    tag = "requests",
    security((), ("token" = [])),
    params(("id" = Uuid, Path, description = "The request")),
    responses((status = 200, description = "How far it is", body = RequestStatus))
)]
async fn show(
    _: Reader,
    State(app): State<App>,
    Segments(id): Segments<Uuid>,
) -> Result<Json<RequestStatus>, ApiError> {
    status(&app, id).await.map(Json)
}

/// How far a request is.
pub async fn status(app: &App, id: Uuid) -> Result<RequestStatus, ApiError> {
    let status = app.store().request_status(id, app.now()).await?;
    status.ok_or_else(|| no_request(id))
}

fn no_request(id: Uuid) -> ApiError {
    ApiError::NotFound(format!("there is no request {id}; GET /v1/requests lists them"))
}

/// Cancel a request, with the token that made it or an admin's
///
/// What no other request waits for leaves the queue, and leases on it end. What is measured stays. A request that is
/// over, or was cancelled before, stays as it is.
#[utoipa::path(
    post,
    path = "/requests/{id}/cancel",
    tag = "requests",
    security(("token" = [])),
    params(("id" = Uuid, Path, description = "The request")),
    responses((status = 200, description = "What it is now", body = RequestStatus))
)]
async fn cancel(
    Requester { actor, is_admin }: Requester,
    State(app): State<App>,
    Segments(id): Segments<Uuid>,
) -> Result<Json<RequestStatus>, ApiError> {
    let cancelled = app.store().cancel_request(id, &actor, is_admin, app.now()).await;
    cancelled.map(Json).map_err(|error| match error {
        CancelError::Missing => no_request(id),
        CancelError::NotYours => ApiError::Forbidden(format!(
            "request {id} was made with another token: use that one, or an admin's"
        )),
        CancelError::Store(error) => error.into(),
    })
}

/// Ask for measurements
#[utoipa::path(
    post,
    path = "/requests",
    tag = "requests",
    security(("token" = [])),
    params(("Idempotency-Key" = Option<String>, Header, description = "A call that is sent twice with one key makes one request")),
    request_body = ProfileRequest,
    responses(
        (status = 201, description = "It is new", body = RequestStatus, headers(("Location" = String))),
        (status = 200, description = "Its key came before", body = RequestStatus, headers(("Location" = String))),
        (status = 404, description = "There is no such hardware or run config", body = Problem, content_type = PROBLEM_JSON),
        (status = 409, description = "The key came before with another body, or an op collides", body = Problem, content_type = PROBLEM_JSON)
    )
)]
async fn create(
    Researcher(actor): Researcher,
    State(app): State<App>,
    headers: HeaderMap,
    Body(body): Body<ProfileRequest>,
) -> Result<(StatusCode, [(header::HeaderName, String); 1], Json<RequestStatus>), ApiError> {
    let idempotency_key = idempotency_key(&headers)?.map(|key| key_of(&actor, &key));
    check_counts(&body)?;
    let (hardware_id, config) = (body.hardware_id.as_str(), body.config.as_deref());
    let table = app.store().table(hardware_id, config).await;
    let table = table.map_err(|error| lookup_error(hardware_id, config, error))?;
    let body_hash = body_hash(&body)?;
    let space = space(&app, &body)?;
    for def in space.iter().flat_map(|space| &space.ops) {
        app.store().ops().novelty(def.clone())?;
    }
    let remeasure = body.remeasure;
    let wanted =
        spelled_out(&app, space, body.networks, body.calibrate as usize, body.sustained).await?;
    if body.sustained && wanted.sustained.is_empty() {
        return Err(ApiError::Invalid(
            "sustained: the request has no network to run: name one in `networks`, or let the space make some with \
             `calibrate`"
                .into(),
        ));
    }
    let request = NewRequest {
        table,
        space: wanted.space,
        ops: wanted.ops,
        keys: wanted.keys,
        networks: wanted.networks,
        sustained: wanted.sustained,
        remeasure,
        idempotency_key,
        body_hash,
    };
    let (id, new) = app.store().add_request(request, &actor, app.now()).await?;
    let status = if new { StatusCode::CREATED } else { StatusCode::OK };
    let address = [(header::LOCATION, format!("/v1/requests/{id}"))];
    Ok((status, address, Json(self::status(&app, id).await?)))
}

/// What is spelled out has bounds; the number of keys is the catalog's affair.
fn check_counts(body: &ProfileRequest) -> Result<(), ApiError> {
    let ops = body.definition.as_ref().map_or(0, |space| space.ops.len());
    let calibrate = body.calibrate as usize;
    for (what, count, most) in [
        ("networks", body.networks.len(), MOST_NETWORKS),
        ("calibrate", calibrate, MOST_CALIBRATION_NETWORKS),
        ("definition.ops", ops, MOST_OPS),
    ] {
        if count > most {
            return Err(ApiError::Invalid(format!(
                "{what}: there are {count}, and one request takes at most {most}: send several requests"
            )));
        }
    }
    Ok(())
}

/// The space that is meant, by name or spelled out, if one is.
fn space(app: &App, body: &ProfileRequest) -> Result<Option<SpaceDef>, ApiError> {
    match (&body.space, &body.definition) {
        (Some(name), None) => Ok(Some(app.store().ops().catalog().space(name)?.clone())),
        (None, Some(definition)) => Ok(Some(definition.clone())),
        (None, None) if !body.networks.is_empty() => Ok(None),
        _ => Err(ApiError::Invalid(
            "give `space`, the name of a built-in space, or `definition`, a space spelled out, and not \
             both; or `networks`, alone or beside them"
                .into(),
        )),
    }
}

/// A request in single tasks.
struct Wanted {
    space: Option<String>,
    ops: Vec<OpDef>,
    keys: Vec<(OpKey, OpDigest)>,
    networks: Vec<WholeNetwork>,
    /// The first of the networks, as sustained runs.
    sustained: Vec<WholeNetwork>,
}

/// The keys of a space, whose number the catalog limits, and the networks. They may be many, so this
/// does not hold other calls up.
async fn spelled_out(
    app: &App,
    space: Option<SpaceDef>,
    networks: Vec<NetworkChoice>,
    calibrate: usize,
    sustained: bool,
) -> Result<Wanted, ApiError> {
    let known = app.store().ops();
    let work = tokio::task::spawn_blocking(move || {
        let catalog = known.catalog();
        let resolved = space.as_ref().map(|space| space.resolve(catalog)).transpose()?;
        let own = resolved.as_ref().map(|space| space.networks(calibrate, CALIBRATION_SEED));
        // Tasks are handed out in this order, so that a table soon predicts much of its space.
        let keys = resolved.map(|space| in_order(&space)).unwrap_or_default();
        let (space, ops) = space.map(|space| (space.name, space.ops)).unzip();
        let ops: Vec<OpDef> = ops.unwrap_or_default();
        // Networks may use the ops that are defined in the space.
        let own = own.into_iter().flatten().map(|spec| NetworkChoice::Defined(Box::new(spec)));
        let networks: Vec<NetworkChoice> = networks.into_iter().chain(own).collect();
        let networks = whole_networks(&networks, &catalog.with_ops(ops.iter().cloned())?)?;
        let runs = networks.iter().take(if sustained { MOST_SUSTAINED } else { 0 });
        let sustained = runs.map(|network| network.clone().sustained(SUSTAINED_SECONDS));
        let sustained = sustained.collect::<Result<_, _>>()?;
        Ok::<_, Invalid>(Wanted { space, ops, keys, networks, sustained })
    });
    Ok(work.await.map_err(|e| ApiError::Internal(e.into()))??)
}

/// The keys of a space, those first that tell most about its networks.
fn in_order(space: &Space) -> Vec<(OpKey, OpDigest)> {
    let candidates = profile_order::candidates(space);
    let order = profile_order::order_in_advance(&candidates).into_iter();
    order.map(|row| (row.key.clone(), row.op.digest().clone())).collect()
}

/// Networks of the ops of a catalog, each once.
fn whole_networks(
    choices: &[NetworkChoice],
    catalog: &Catalog,
) -> Result<Vec<WholeNetwork>, Invalid> {
    let mut networks: Vec<WholeNetwork> = Vec::with_capacity(choices.len());
    let mut seen = HashSet::new();
    for (index, choice) in choices.iter().enumerate() {
        let network = match choice {
            NetworkChoice::Named(name) => WholeNetwork::builtin(name),
            NetworkChoice::Defined(spec) => WholeNetwork::new(spec, catalog),
        };
        let network = network.map_err(|e| e.within(format!("networks[{index}]")))?;
        if seen.insert(network.digest.clone()) {
            networks.push(network);
        }
    }
    Ok(networks)
}

/// An idempotency key is its sender's: two people who choose the same one ask for two things.
fn key_of(actor: &Actor, key: &str) -> String {
    match actor {
        Actor::Token { id, .. } => format!("{id}:{key}"),
        Actor::CommandLine => format!(":{key}"),
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    match value.to_str() {
        Ok(text) if (1..=LONGEST_IDEMPOTENCY_KEY).contains(&text.len()) => {
            Ok(Some(text.to_owned()))
        }
        _ => Err(ApiError::Malformed(format!(
            "the header Idempotency-Key has 1 to {LONGEST_IDEMPOTENCY_KEY} plain characters"
        ))),
    }
}

fn body_hash(body: &ProfileRequest) -> Result<String, ApiError> {
    let text = serde_json::to_string(body).map_err(|e| ApiError::Internal(e.into()))?;
    Ok(hex::encode(Sha256::digest(text)))
}
