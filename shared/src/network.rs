//! A whole network as a unit of work: the definition that is sent, run and stored.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use ops_catalog::digest::{self, DigestError};
use ops_catalog::{Catalog, Invalid, Network, NetworkPlan, NetworkSpec, Op, OpDef};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The longest name of a network, in bytes.
const MOST_NAME: usize = 200;

/// The most bytes of a definition's JSON: each measurement contains it, and a hundred measurements are sent at a time.
/// A network of a hundred layers has 10 KiB.
const MOST_BYTES: usize = 64 << 10;

/// The longest sustained run, in seconds.
pub const MOST_SUSTAINED_SECONDS: u32 = 3600;

/// The version of the hashed content; the number changes with the meaning of the hash.
const PREFIX: &str = "net2-";

/// Number of characters of a digest that identify a network without a name.
const SHORT_DIGEST: usize = 17;

/// Hash of the computation of a network: its input and its ops, by their digests, with shapes and wiring. It does not
/// depend on the form of the definition, on names and prose, or on the order of nodes and of added inputs
/// ([`NetworkPlan::canonical`]). A sustained run has a digest of its own, for each duration. Written as `net2-` and 32
/// hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct NetworkDigest(String);

impl NetworkDigest {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NetworkDigest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        digest::read(PREFIX, text).map(NetworkDigest)
    }
}

impl TryFrom<String> for NetworkDigest {
    type Error = DigestError;
    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

#[cfg(feature = "openapi")]
ops_catalog::openapi::text_schema!(NetworkDigest, "A hash of what a network computes.");

impl fmt::Display for NetworkDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl NetworkDigest {
    /// The digest of a plan that is run for so many seconds without a pause, or as usual.
    pub fn of(plan: &NetworkPlan, sustained_seconds: Option<u32>) -> NetworkDigest {
        let mut content = plan.canonical();
        if let Some(seconds) = sustained_seconds {
            content += &format!("\nsustained {seconds}");
        }
        NetworkDigest(digest::write(PREFIX, &Sha256::digest(content)))
    }
}

/// A network that is measured as a whole, with all that an agent needs to run it beside the built-in
/// catalog.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WholeNetwork {
    /// What tells it from other networks.
    pub digest: NetworkDigest,
    /// The definition, without prose and without its own ops.
    pub spec: NetworkSpec,
    /// Definitions of its ops that are not built in, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ops: Vec<OpDef>,
    /// How long it runs without a pause, in seconds, to compare the latency at the end with that at the beginning.
    /// Absent for a usual measurement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 3600))]
    pub sustained_seconds: Option<u32>,
}

/// Its name, and whether it is a sustained run: `mobilenet_v2, sustained`.
impl fmt::Display for WholeNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sustained = if self.is_sustained() { ", sustained" } else { "" };
        write!(f, "{}{sustained}", self.name())
    }
}

impl WholeNetwork {
    /// A network whose ops are in a catalog.
    ///
    /// # Errors
    /// When it is invalid, or too large to be measured.
    pub fn new(spec: &NetworkSpec, catalog: &Catalog) -> Result<WholeNetwork, Invalid> {
        let plan = Network::new(spec, catalog)?.plan(catalog)?;
        let network = WholeNetwork {
            digest: NetworkDigest::of(&plan, None),
            spec: NetworkSpec { id: None, doc: None, published: None, ops: None, ..spec.clone() },
            ops: own_ops(&plan),
            sustained_seconds: None,
        };
        network.check_bounds()?;
        Ok(network)
    }

    /// A built-in network.
    ///
    /// # Errors
    /// When no network has this name; the message lists the existing ones.
    pub fn builtin(name: &str) -> Result<WholeNetwork, Invalid> {
        let catalog = Catalog::builtin();
        // The catalog's own look-up has the error message for an unknown name.
        catalog.network(name)?;
        let spec = catalog.networks().find(|spec| spec.name.as_deref() == Some(name));
        WholeNetwork::new(spec.expect("it was just found"), catalog)
    }

    /// The same network as a sustained run of so many seconds.
    ///
    /// # Errors
    /// When the duration is out of bounds, or the network is not valid.
    pub fn sustained(self, seconds: u32) -> Result<WholeNetwork, Invalid> {
        let plan = self.plan()?;
        let digest = NetworkDigest::of(&plan, Some(seconds));
        let network = WholeNetwork { digest, sustained_seconds: Some(seconds), ..self };
        network.check_bounds()?;
        Ok(network)
    }

    /// Whether it runs without a pause.
    pub fn is_sustained(&self) -> bool {
        self.sustained_seconds.is_some()
    }

    /// Its name, or the beginning of its digest.
    pub fn name(&self) -> &str {
        let short = || self.digest.0.get(..SHORT_DIGEST).unwrap_or(&self.digest.0);
        self.spec.name.as_deref().unwrap_or_else(short)
    }

    /// The network as op keys, after a check of the definition against its digest.
    ///
    /// # Errors
    /// When the definition is invalid or too large, or does not match the digest: the built-in ops have changed since.
    pub fn plan(&self) -> Result<NetworkPlan, Invalid> {
        self.check_bounds()?;
        let builtin = Catalog::builtin();
        let plan = |catalog| Network::new(&self.spec, catalog)?.plan(catalog);
        let plan = match self.ops.as_slice() {
            [] => plan(builtin),
            ops => plan(&builtin.with_ops(ops.iter().cloned())?),
        }?;
        let digest = NetworkDigest::of(&plan, self.sustained_seconds);
        if digest != self.digest {
            return Err(Invalid::new(
                format!("network {self}"),
                format!(
                    "its digest is {}, and with the ops of this program it is {digest}: it belongs to \
                     another version of the catalog",
                    self.digest
                ),
            ));
        }
        Ok(plan)
    }

    fn check_bounds(&self) -> Result<(), Invalid> {
        let name = self.spec.name.as_deref().unwrap_or("unnamed");
        if name.is_empty() || name.len() > MOST_NAME || name.chars().any(char::is_control) {
            let bounds = format!("has 1 to {MOST_NAME} bytes on one line");
            return Err(Invalid::new("a network's name", bounds));
        }
        if let Some(seconds) = self.sustained_seconds
            && !(1..=MOST_SUSTAINED_SECONDS).contains(&seconds)
        {
            return Err(Invalid::new(
                format!("network {name}"),
                format!(
                    "sustained_seconds is {seconds}; a sustained run takes 1 to {MOST_SUSTAINED_SECONDS} seconds"
                ),
            ));
        }
        let size = serde_json::to_string(self).map_or(usize::MAX, |text| text.len());
        if size > MOST_BYTES {
            return Err(Invalid::new(
                format!("network {name}"),
                format!(
                    "has {size} bytes as JSON; a network that is measured has at most {MOST_BYTES}"
                ),
            ));
        }
        Ok(())
    }
}

/// Definitions of a plan's ops that the built-in catalog lacks, by name.
fn own_ops(plan: &NetworkPlan) -> Vec<OpDef> {
    let own: BTreeMap<&str, &OpDef> = plan
        .steps
        .iter()
        .filter(|step| !is_builtin(&step.op))
        .map(|step| (step.op.name(), step.op.def()))
        .collect();
    own.into_values().cloned().collect()
}

/// Whether the built-in catalog has this op, by name and digest.
pub fn is_builtin(op: &Op) -> bool {
    Catalog::builtin().op(op.name()).is_ok_and(|builtin| builtin.digest() == op.digest())
}

#[cfg(test)]
mod tests;
