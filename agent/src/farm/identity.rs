//! Who this box is in a farm, kept between starts.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use latlas_shared::HardwareId;
use latlas_shared::api::{EnrolRequest, Enrolled};
use latlas_shared::client::Client;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::lower::PRIMITIVES;
use crate::record::Recorder;

/// The file that holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// The coordinator that it is valid for.
    pub coordinator: String,
    /// The box in that farm.
    pub agent_id: Uuid,
    /// Its credential.
    pub credential: String,
    /// The class that its results belong to.
    pub hardware_id: HardwareId,
    /// The run config that it enrolled with.
    pub run_config: String,
    /// Digest of the fingerprint that it enrolled with.
    pub fingerprint: String,
}

/// The identity of an earlier start, or a new one by enrolling.
///
/// A box whose run config, or anything in its fingerprint, is another than it enrolled with enrols
/// again: a new driver or kernel must not mix silently into what was measured before.
///
/// # Errors
/// When there is none and no token to enrol with, or the coordinator refuses.
pub async fn identify(
    client: &Client,
    state: &Path,
    token: Option<String>,
    name: Option<String>,
    recorder: &Recorder,
) -> Result<Identity> {
    let path = state.join("identity.json");
    let known = load(&path)?.filter(|identity| {
        identity.coordinator == client.base().as_str()
            && identity.hardware_id == recorder.hardware_id
            && identity.run_config == recorder.run_config.id()
            && identity.fingerprint == recorder.fingerprint.digest()
    });
    if let Some(identity) = known {
        return Ok(identity);
    }
    let Some(token) = token else {
        bail!(
            "this box, as it is now, is not enrolled with {} as {} under {}: give --enroll-token \
             or --enroll-token-file, which `latlas-coordinator token create --role enroll` prints",
            client.base(),
            recorder.hardware_id,
            recorder.run_config.id()
        );
    };
    let request = EnrolRequest {
        name: name.unwrap_or_else(|| recorder.system().host_name()),
        fingerprint: recorder.fingerprint.clone(),
        run_config: recorder.run_config.clone(),
        primitives: PRIMITIVES.map(str::to_owned).to_vec(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let enrolled: Enrolled = client.with_token(token).post("v1/agents", &request).await?;
    let identity = Identity {
        coordinator: client.base().to_string(),
        agent_id: enrolled.agent_id,
        credential: enrolled.credential,
        hardware_id: enrolled.hardware_id,
        run_config: recorder.run_config.id(),
        fingerprint: recorder.fingerprint.digest(),
    };
    store(&path, &identity)?;
    tracing::info!("enrolled as {} of {}", identity.agent_id, identity.hardware_id);
    Ok(identity)
}

fn load(path: &Path) -> Result<Option<Identity>> {
    match fs::read_to_string(path) {
        Ok(text) => serde_json::from_str(&text)
            .map(Some)
            .with_context(|| format!("{} is damaged: remove it and enrol again", path.display())),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).with_context(|| format!("reading {}", path.display())),
    }
}

/// Writes the file so that only this user can read it, and never half.
fn store(path: &Path, identity: &Identity) -> Result<()> {
    let partial = path.with_extension("partial");
    let write = || -> Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&partial)?;
        file.write_all(&serde_json::to_vec_pretty(identity)?)?;
        file.sync_all()?;
        Ok(fs::rename(&partial, path)?)
    };
    write().with_context(|| format!("writing {}", path.display()))
}
