//! What a request asks for so that a table predicts some networks, and what was measured of them.

use latlas_predict::{Micros, Predictor, TableIndex};
use latlas_shared::api::{MOST_CALIBRATION_NETWORKS, NetworkChoice, OpEntry, ProfileRequest};
use latlas_shared::{MeasuredNetwork, Missing, NetworkDigest, Table};
use ops_catalog::{CALIBRATION_SEED, Catalog, NetworkPlan, Space, SpaceDef};

use crate::{Client, ClientError, WantedTable, with_query};

/// The name of a space that has the missing rows of some networks.
const MISSING_ROWS: &str = "missing-rows";

/// The beginning of the names of networks that are made of the ops of other networks.
const CALIBRATION: &str = "calibration";

/// The built-in catalog and the submitted ops of a coordinator.
///
/// # Errors
/// When the coordinator does not answer, or has an op that this program cannot use.
pub async fn known_ops(client: &Client) -> Result<Catalog, ClientError> {
    let path = "v1/ops";
    let entries: Vec<OpEntry> = client.get_all(path).await?;
    let builtin = Catalog::builtin();
    let new = entries.into_iter().map(|entry| entry.definition);
    let new = new.filter(|def| builtin.op(&def.name).is_err());
    builtin.with_ops(new).map_err(|problem| not_understood(client, path, &problem))
}

fn not_understood(client: &Client, path: &str, cause: &dyn std::fmt::Display) -> ClientError {
    let url = format!("{}/{path}", client.shown_base());
    ClientError::NotUnderstood { url, cause: cause.to_string() }
}

/// Adds to a request the rows that a coordinator's table lacks to predict some networks, and makes the networks that
/// calibrate it of the ops of these networks. Rows that are suspect or failed count as lacking.
///
/// # Errors
/// When the coordinator does not answer, or has no such hardware or run config.
pub async fn add_missing_rows(
    client: &Client,
    request: &mut ProfileRequest,
    plans: &[&NetworkPlan],
) -> Result<(), ClientError> {
    let (hardware, config) = (&request.hardware_id, request.config.as_deref());
    let path = WantedTable { hardware, config, version: None, format: "json" }.path();
    let table: Table = client.get(&path).await?;
    let index = TableIndex::new(table).map_err(|error| not_understood(client, &path, &error))?;
    let missing = Predictor::new(index, Missing::Error).missing(plans.iter().copied());
    request.definition = (!missing.is_empty()).then(|| SpaceDef {
        name: MISSING_ROWS.to_owned(),
        doc: "What a table lacks to predict some networks.".to_owned(),
        ops: vec![],
        grids: vec![],
        keys: missing.into_iter().map(|op| op.key).collect(),
        networks: vec![],
    });
    let count = request.calibrate as usize;
    // The coordinator refuses larger numbers.
    if count <= MOST_CALIBRATION_NETWORKS {
        // It would make the networks of the missing rows alone.
        request.calibrate = 0;
        let own = Space::of_plans(CALIBRATION, plans).networks(count, CALIBRATION_SEED);
        request.networks.extend(own.into_iter().map(|spec| NetworkChoice::Defined(Box::new(spec))));
    }
    Ok(())
}

/// The measured latency of a network; none if it was not measured on the hardware of the table.
///
/// # Errors
/// See [`ClientError`]. The coordinator is only asked if the table does not list all of its measured networks.
pub async fn measured(
    client: &Client,
    table: &Table,
    config: &str,
    digest: &NetworkDigest,
) -> Result<Option<Micros>, ClientError> {
    let Some(accuracy) = &table.accuracy else { return Ok(None) };
    if let Some(found) = accuracy.networks.iter().find(|network| network.digest == *digest) {
        return Ok(Some(Micros {
            low: found.measured_low_micros,
            latency: found.measured_micros,
            high: found.measured_high_micros,
        }));
    }
    if accuracy.overall.networks as usize <= accuracy.networks.len() {
        return Ok(None);
    }
    let path = format!("v1/tables/{}/networks", table.hardware_id);
    let path = with_query(&path, &[("config", config)]);
    let all = client.download_at(&path).await?.content;
    for line in all.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        let network: MeasuredNetwork =
            serde_json::from_slice(line).map_err(|error| not_understood(client, &path, &error))?;
        if network.network.digest == *digest {
            let (low, latency, high) = network.latency.latency_micros();
            return Ok(Some(Micros { low, latency, high }));
        }
    }
    Ok(None)
}
