//! The identity of this agent in a farm, kept between starts.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::net::UnixListener;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use latlas_client::{Client, ClientError};
use latlas_program::files::{Readers, write_whole};
use latlas_shared::HardwareId;
use latlas_shared::api::{EnrolRequest, Enrolled, FarmIdentity, Instance};
use ops_catalog::{Primitive, text};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::box_key;
use crate::record::Recorder;

/// The file that holds the identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// The farm for which the identity is valid. The farm's address may change.
    pub farm_id: Uuid,
    /// The last known address of the farm, for people.
    pub coordinator: String,
    /// The agent in that farm.
    pub agent_id: Uuid,
    /// The agent's credential.
    pub credential: String,
    /// The hardware id of the agent's results.
    pub hardware_id: HardwareId,
    /// The run config at enrolment.
    pub run_config: String,
    /// Digest of the fingerprint at enrolment.
    pub fingerprint: String,
}

impl Identity {
    /// Whether the agent's hardware and run config are those of its enrolment.
    fn describes(&self, recorder: &Recorder) -> bool {
        self.hardware_id == recorder.hardware_id
            && self.run_config == recorder.run_config.id()
            && self.fingerprint == recorder.fingerprint.digest()
    }
}

/// A token to enrol with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnrolToken {
    /// The token.
    Given(String),
    /// There is none; why, or what to do.
    Missing(String),
}

impl EnrolToken {
    fn given(&self) -> Option<&str> {
        match self {
            EnrolToken::Given(token) => Some(token),
            EnrolToken::Missing(_) => None,
        }
    }
}

/// The data with which an agent joins a farm.
pub struct Entry<'a> {
    /// The directory of the identity.
    pub state: &'a Path,
    /// Token to enrol with.
    pub token: EnrolToken,
    /// An id that distinguishes the box from others. None: it is derived from facts about the machine.
    pub box_id: Option<String>,
    /// The name to enrol under; by default the host name.
    pub name: Option<String>,
    /// This process.
    pub instance: &'a Instance,
}

/// An agent that is enrolled in a farm.
pub struct Entered {
    /// The agent's identity.
    pub identity: Identity,
    /// Whether the coordinator has confirmed that it is the farm of this identity.
    pub verified: bool,
    /// The socket that this process keeps open as long as it uses the box's key.
    pub claim: Option<UnixListener>,
}

/// The identity of an earlier start, or a new identity after enrolment. The address of the farm may have changed.
///
/// The box enrols again if its run config or any fact of its fingerprint differs from the enrolment. Results of a new
/// driver or kernel must not mix silently with earlier measurements.
///
/// # Errors
/// When there is neither an identity nor an enrol token, when the coordinator is another farm, or when it refuses.
pub async fn identify(client: &Client, entry: Entry<'_>, recorder: &Recorder) -> Result<Entered> {
    let path = entry.state.join("identity.json");
    let stored = load(&path)?;
    let other_config = stored.as_ref().and_then(|identity| other_config(identity, recorder));
    let known = stored.filter(|identity| identity.describes(recorder));
    if let (None, EnrolToken::Missing(why)) = (&known, &entry.token) {
        bail!(
            "this box, as it is now, is not enrolled with {} as {} under {}, and there is no token to enrol with: \
             {why}. `latlas-coordinator token create --role enroll` prints one for --enroll-token-file{}",
            client.base(),
            recorder.hardware_id,
            recorder.run_config.id(),
            other_config.unwrap_or_default()
        );
    }
    let farm_id = match (farm_id(client).await, known) {
        (Ok(farm_id), Some(mut identity)) if farm_id == identity.farm_id => {
            if identity.coordinator != client.base().as_str() {
                tracing::info!("the farm has moved from {}", identity.coordinator);
                identity.coordinator = client.base().to_string();
                store(&path, &identity)?;
            }
            let (_, claim) = own_key(farm_id, entry.box_id.as_deref(), recorder);
            return Ok(Entered { identity, verified: true, claim });
        }
        (Ok(farm_id), Some(identity)) if entry.token.given().is_none() => {
            return Err(another_farm(client, &identity, farm_id));
        }
        (Ok(farm_id), _) => farm_id,
        // An enrolled agent starts even while its farm cannot be reached.
        (Err(e), Some(identity)) if e.is_transient() => {
            tracing::warn!("{e}");
            let (_, claim) = own_key(identity.farm_id, entry.box_id.as_deref(), recorder);
            return Ok(Entered { identity, verified: false, claim });
        }
        (Err(e), _) => return Err(e.into()),
    };
    enrol(client, entry, farm_id, &path, recorder).await
}

/// What to do if the identity is that of another agent of this box, which measures under another run config.
fn other_config(identity: &Identity, recorder: &Recorder) -> Option<String> {
    let config = &identity.run_config;
    (*config != recorder.run_config.id()).then(|| {
        format!(
            ". The state directory is that of an agent under {config}: another run config is another agent, and \
             needs a --state of its own"
        )
    })
}

async fn enrol(
    client: &Client,
    entry: Entry<'_>,
    farm_id: Uuid,
    path: &Path,
    recorder: &Recorder,
) -> Result<Entered> {
    let (box_key, claim) = own_key(farm_id, entry.box_id.as_deref(), recorder);
    let request = EnrolRequest {
        name: entry.name.clone().unwrap_or_else(|| recorder.system().host_name()),
        fingerprint: recorder.fingerprint.clone(),
        run_config: recorder.run_config.clone(),
        primitives: Primitive::NAMES.iter().copied().map(str::to_owned).collect(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        box_key,
        instance: Some(entry.instance.clone()),
    };
    let token = entry.token.given().context("a token to enrol with")?.to_owned();
    let enrolled: Enrolled = client.with_token(token).post("v1/agents", &request).await?;
    let identity = Identity {
        farm_id: enrolled.farm_id,
        coordinator: client.base().to_string(),
        agent_id: enrolled.agent_id,
        credential: enrolled.credential,
        hardware_id: enrolled.hardware_id,
        run_config: recorder.run_config.id(),
        fingerprint: recorder.fingerprint.digest(),
    };
    store(path, &identity)?;
    tracing::info!("enrolled as {} of {}", identity.agent_id, identity.hardware_id);
    Ok(Entered { identity, verified: true, claim })
}

/// The id of a coordinator's farm.
async fn farm_id(client: &Client) -> Result<Uuid, ClientError> {
    Ok(client.get::<FarmIdentity>("v1/farm/id").await?.farm_id)
}

/// Checks that a coordinator is the farm of an identity.
///
/// # Errors
/// When the coordinator is another farm, or does not answer.
pub async fn check_farm(client: &Client, identity: &Identity) -> Result<()> {
    match farm_id(client).await? {
        farm_id if farm_id == identity.farm_id => Ok(()),
        farm_id => Err(another_farm(client, identity, farm_id)),
    }
}

fn another_farm(client: &Client, identity: &Identity, farm_id: Uuid) -> anyhow::Error {
    anyhow!(
        "the coordinator at {} is another farm ({farm_id}) than the one that this box is enrolled with \
         ({}, last at {}): correct --coordinator, or give --enroll-token-file to enrol it with this farm",
        client.base(),
        identity.farm_id,
        identity.coordinator
    )
}

/// The box's key in a farm, and the socket that reserves it for this process. None if no fact identifies the box, or if
/// another agent on this machine uses the key.
fn own_key(
    farm_id: Uuid,
    box_id: Option<&str>,
    recorder: &Recorder,
) -> (Option<String>, Option<UnixListener>) {
    let facts = box_id.map(str::to_owned).or_else(|| recorder.system().box_facts());
    let Some(facts) = facts else { return (None, None) };
    // A second GPU is a second agent.
    let key = box_key::box_key(farm_id, &format!("{facts} {}", recorder.fingerprint.device));
    let claim = box_key::claim(&key, recorder);
    (claim.is_some().then_some(key), claim)
}

fn load(path: &Path) -> Result<Option<Identity>> {
    match fs::read_to_string(path) {
        Ok(json) => text::read_json(&json)
            .map(Some)
            .with_context(|| format!("{} is damaged: remove it and enrol again", path.display())),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).with_context(|| format!("reading {}", path.display())),
    }
}

/// Writes the file atomically, readable only by this user.
fn store(path: &Path, identity: &Identity) -> Result<()> {
    // The directory entry must be on disk too. Otherwise a power loss could cost one more use of the token.
    let json = serde_json::to_vec_pretty(identity)?;
    write_whole(path, &json, Readers::Owner).with_context(|| format!("writing {}", path.display()))
}
