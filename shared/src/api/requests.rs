//! Calls of researchers: requests to measure, and predictions.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use ops_catalog::{NetworkSpec, SpaceDef};
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use uuid::Uuid;

use super::{Cancelled, Unattended};
use crate::{HardwareId, Missing, Prediction};

/// The most networks that calibrate one request. From some forty on, more change nothing.
pub const MOST_CALIBRATION_NETWORKS: usize = 100;

/// `POST /requests`: measure these keys and networks on that hardware.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileRequest {
    /// The class of device.
    pub hardware_id: HardwareId,
    /// Id of the run config; the hardware's default when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// Name of a built-in space.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub space: Option<String>,
    /// A space that is spelled out, possibly with ops of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<SpaceDef>,
    /// Whole networks, to compare predictions with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<NetworkChoice>,
    /// How many whole networks, made of the space's own keys, are measured too, so that the table can calibrate its
    /// predictions; `latlas profile` asks for 5. A space whose keys hardly fit one another has fewer.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub calibrate: u32,
    /// Run up to three of its networks for ten minutes each without a pause, too: those of `networks` first, then those
    /// that calibrate. The table says how much slower the device is then.
    #[serde(default, skip_serializing_if = "is_false")]
    pub sustained: bool,
    /// Measure again what is already measured.
    #[serde(default)]
    pub remeasure: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

/// A network that is asked for: the name of a built-in one, or a definition.
#[derive(Debug, Clone, PartialEq)]
pub enum NetworkChoice {
    /// The name of a built-in network.
    Named(String),
    /// A network that is spelled out, of ops that the coordinator knows.
    Defined(Box<NetworkSpec>),
}

#[cfg(feature = "openapi")]
ops_catalog::openapi::either_schema!(
    NetworkChoice,
    String,
    NetworkSpec,
    "The name of a built-in network, or a network that is spelled out."
);

impl Serialize for NetworkChoice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            NetworkChoice::Named(name) => serializer.serialize_str(name),
            NetworkChoice::Defined(spec) => spec.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for NetworkChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ChoiceVisitor;
        impl<'de> Visitor<'de> for ChoiceVisitor {
            type Value = NetworkChoice;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a network, or the name of a built-in one")
            }
            fn visit_str<E: de::Error>(self, name: &str) -> Result<NetworkChoice, E> {
                Ok(NetworkChoice::Named(name.to_owned()))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<NetworkChoice, A::Error> {
                let spec = NetworkSpec::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(NetworkChoice::Defined(Box::new(spec)))
            }
        }
        deserializer.deserialize_any(ChoiceVisitor)
    }
}

/// State of a request: `POST /requests`, `GET /requests/{id}`, and the data of its events.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestStatus {
    /// Its id.
    pub id: Uuid,
    /// The class of device.
    pub hardware_id: HardwareId,
    /// Id of the run config.
    pub config: String,
    /// Name of the space; null when only networks were asked for.
    pub space: Option<String>,
    /// Whole networks that were asked for.
    pub networks: u32,
    /// When it was made.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub created_at: Timestamp,
    /// Tasks in all.
    pub total: u32,
    /// Tasks that have a measurement.
    pub done: u32,
    /// Tasks that were given up.
    pub failed: u32,
    /// Tasks that an agent is working on.
    pub running: u32,
    /// Given-up tasks, by key or as `network NAME`, and why; at most 100.
    pub failures: BTreeMap<String, String>,
    /// Null while an agent takes its tasks, and after its end.
    pub unattended: Option<Unattended>,
    /// By whom it was cancelled; null unless it was.
    pub cancelled: Option<Cancelled>,
}

impl RequestStatus {
    /// Whether nothing more will happen to it.
    pub fn is_finished(&self) -> bool {
        self.cancelled.is_some() || self.open() == 0
    }

    /// Tasks that are not over.
    pub fn open(&self) -> u32 {
        self.total.saturating_sub(self.done + self.failed)
    }
}

/// The header of an answer from a version that lacks stored measurements; its value is a [`Stale`].
pub const STALE: &str = "latlas-stale";

/// Why an answer rests on an older version of a table than the measurements that are stored.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, strum::IntoStaticStr)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Stale {
    /// The next version is being assembled, and takes longer than readers wait.
    Behind,
    /// The coordinator's disk is full.
    DiskFull,
    /// The coordinator cannot write its database.
    DiskTrouble,
    /// The next version could not be assembled; the coordinator's log has the reason.
    Failed,
}

impl Stale {
    /// As it is written in a header.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// `POST /predict`: what a network costs on that hardware.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PredictRequest {
    /// The class of device.
    pub hardware_id: HardwareId,
    /// Id of the run config; the hardware's default when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// The network.
    pub network: NetworkSpec,
    /// What happens to an op whose row is missing.
    #[serde(default)]
    pub missing: Missing,
}

/// Answer to [`PredictRequest`].
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PredictAnswer {
    /// The class of device.
    pub hardware_id: HardwareId,
    /// Id of the run config.
    pub config: String,
    /// The table version that it was predicted from.
    pub version: String,
    /// Why this version lacks stored measurements; absent when it has them all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale: Option<Stale>,
    /// The prediction.
    pub prediction: Prediction,
}
