//! The configuration of a search, and its YAML format: the space of architectures, the constraints on each device, and
//! the strategy.

mod space;

use std::collections::BTreeMap;
use std::path::PathBuf;

use latlas_shared::Missing;
use ops_catalog::{Catalog, Invalid, text};
use serde::Deserialize;

pub use self::space::{SpaceChoice, SpaceSource};
use crate::constraints::{LatencyBound, per_op};

/// The most devices of one configuration.
const MAX_DEVICES: usize = 100;

/// The configuration of a search.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SearchConfig {
    /// The space of architectures, if it is about one.
    pub space: Option<SpaceChoice>,
    /// What is allowed on each device. A configuration without `target_device` has at most one, without a name.
    pub devices: Vec<DeviceBudget>,
    /// What is allowed everywhere.
    pub limits: Limits,
    /// Which number of a prediction is compared with a budget of latency.
    pub latency_bound: LatencyBound,
    /// What becomes of a candidate with an op that a table does not have; the program's default if not given.
    pub missing: Option<Missing>,
    /// How to search.
    pub strategy: Option<Strategy>,
}

/// Limits on one device.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DeviceBudget {
    /// Its hardware id, or the name that a farm gives it; none if the command line says which table is meant.
    pub target_device: Option<String>,
    /// The file of its table; none if the command line gives it.
    pub table: Option<PathBuf>,
    /// Latency in milliseconds.
    pub max_ms: Option<f64>,
    /// Energy in millijoules.
    pub max_energy_mj: Option<f64>,
}

/// Limits that hold on every device. An absent limit allows everything.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Limits {
    /// Multiply-accumulates.
    pub max_flops: Option<u64>,
    /// Multiply-accumulates that a network needs at least, against networks of identities.
    pub min_flops: Option<u64>,
    /// Parameters.
    pub max_params: Option<u64>,
    /// MiB of weights, in the element type of the table.
    pub max_weights_mib: Option<f64>,
    /// MiB of weights and of the activations that exist at the same time, in the element type of the table.
    pub max_peak_memory_mib: Option<f64>,
    /// Layers or nodes, in the author's form.
    pub max_layers: Option<u64>,
    /// Layers or nodes of an op, by its name in the catalog.
    pub max_per_op: BTreeMap<String, u64>,
}

/// How to search. Which fields mean something depends on the algorithm.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Strategy {
    /// The algorithm.
    pub algorithm: String,
    /// Epochs in which a supernet is trained.
    pub supernet_epochs: Option<u32>,
    /// Epochs in which each chosen network is trained further.
    pub finetune_epochs: Option<u32>,
    /// Candidates that exist at the same time.
    pub population_size: Option<u32>,
}

/// The file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    search_space: Option<space::SpaceDef>,
    constraints: Option<Section>,
    latency_bound: Option<LatencyBound>,
    missing: Option<Missing>,
    strategy: Option<Strategy>,
    // The configuration of `latlas prune` alone has its constraints here.
    max_latency_ms: Option<f64>,
    max_energy_mj: Option<f64>,
    max_flops: Option<u64>,
    min_flops: Option<u64>,
    max_params: Option<u64>,
    max_peak_memory_mib: Option<f64>,
    max_layers: Option<u64>,
    max_per_op: Option<BTreeMap<String, u64>>,
}

/// `constraints`.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Section {
    latency: Option<OneOrMore>,
    size: Option<SizeLimits>,
    max_flops: Option<u64>,
    min_flops: Option<u64>,
    max_peak_memory_mib: Option<f64>,
    max_layers: Option<u64>,
    max_per_op: Option<BTreeMap<String, u64>>,
}

/// `constraints.latency`: one device, or a list.
enum OneOrMore {
    One(DeviceDef),
    More(Vec<DeviceDef>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeviceDef {
    target_device: String,
    table: Option<PathBuf>,
    max_ms: Option<f64>,
    max_energy_mj: Option<f64>,
}

/// `constraints.size`.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct SizeLimits {
    max_params: Option<u64>,
    /// Millions.
    max_params_m: Option<f64>,
    max_weights_mib: Option<f64>,
}

impl<'de> Deserialize<'de> for OneOrMore {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
        use serde::de::{MapAccess, SeqAccess, Visitor};
        struct DeviceVisitor;
        impl<'de> Visitor<'de> for DeviceVisitor {
            type Value = OneOrMore;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(
                    "a device, written `{target_device: ..., max_ms: ...}`, or a list of devices",
                )
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<OneOrMore, A::Error> {
                DeviceDef::deserialize(MapAccessDeserializer::new(map)).map(OneOrMore::One)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<OneOrMore, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(OneOrMore::More)
            }
        }
        deserializer.deserialize_any(DeviceVisitor)
    }
}

impl SearchConfig {
    /// Reads a configuration, for candidates that use the ops of a catalog.
    ///
    /// # Errors
    /// Syntax errors, unknown fields and invalid values, with line and column; no constraint, no space and no strategy.
    pub fn from_yaml(text: &str, catalog: &Catalog) -> Result<SearchConfig, Invalid> {
        text::read_checked(text, |file: File| file.checked(catalog))
    }

    /// Whether anything is forbidden.
    pub fn has_constraints(&self) -> bool {
        self.limits != Limits::default() || !self.devices.is_empty()
    }
}

impl File {
    fn checked(self, catalog: &Catalog) -> Result<SearchConfig, Invalid> {
        self.check_places()?;
        let (devices, limits) = match self.constraints {
            Some(section) => section.checked(catalog)?,
            None => {
                let device = DeviceBudget {
                    max_ms: self.max_latency_ms,
                    max_energy_mj: self.max_energy_mj,
                    ..DeviceBudget::default()
                };
                positive(device.max_ms, "max_latency_ms", "a latency")?;
                positive(device.max_energy_mj, "max_energy_mj", "an energy")?;
                positive(self.max_peak_memory_mib, "max_peak_memory_mib", "memory")?;
                let limits = Limits {
                    max_flops: self.max_flops,
                    min_flops: self.min_flops,
                    max_params: self.max_params,
                    max_weights_mib: None,
                    max_peak_memory_mib: self.max_peak_memory_mib,
                    max_layers: self.max_layers,
                    max_per_op: per_op(self.max_per_op.unwrap_or_default(), catalog)?,
                };
                let devices = if device == DeviceBudget::default() { vec![] } else { vec![device] };
                (devices, limits)
            }
        };
        check_flops(&limits)?;
        let config = SearchConfig {
            space: self.search_space.map(space::SpaceDef::checked).transpose()?,
            devices,
            limits,
            latency_bound: self.latency_bound.unwrap_or_default(),
            missing: self.missing,
            strategy: self.strategy.map(Strategy::checked).transpose()?,
        };
        if self.latency_bound.is_some() && config.devices.iter().all(|one| one.max_ms.is_none()) {
            return Err(Invalid::new("latency_bound", "says nothing without a budget of latency"));
        }
        if !config.has_constraints() && config.space.is_none() && config.strategy.is_none() {
            return Err(Invalid::new(
                "",
                "there is no constraint: give at least one of max_latency_ms, max_flops, min_flops, max_params, \
                 max_layers, max_per_op, max_energy_mj and max_peak_memory_mib, or the section `constraints`",
            ));
        }
        Ok(config)
    }

    /// Constraints stand in the section, or without one at the top.
    fn check_places(&self) -> Result<(), Invalid> {
        if self.constraints.is_none() {
            return Ok(());
        }
        let at_top = [
            ("max_latency_ms", self.max_latency_ms.is_some(), "latency.max_ms"),
            ("max_energy_mj", self.max_energy_mj.is_some(), "latency.max_energy_mj"),
            ("max_params", self.max_params.is_some(), "size.max_params"),
            ("max_flops", self.max_flops.is_some(), "max_flops"),
            ("min_flops", self.min_flops.is_some(), "min_flops"),
            ("max_peak_memory_mib", self.max_peak_memory_mib.is_some(), "max_peak_memory_mib"),
            ("max_layers", self.max_layers.is_some(), "max_layers"),
            ("max_per_op", self.max_per_op.is_some(), "max_per_op"),
        ];
        match at_top.into_iter().find(|(_, given, _)| *given) {
            Some((field, _, inside)) => {
                let problem = format!("stands beside `constraints`: write it there, as `{inside}`");
                Err(Invalid::new(field, problem))
            }
            None => Ok(()),
        }
    }
}

impl Section {
    fn checked(self, catalog: &Catalog) -> Result<(Vec<DeviceBudget>, Limits), Invalid> {
        let place = "constraints";
        let (devices, one) = match self.latency {
            None => (vec![], false),
            Some(OneOrMore::One(device)) => (vec![device], true),
            Some(OneOrMore::More(devices)) => (devices, false),
        };
        if devices.len() > MAX_DEVICES {
            let problem =
                format!("has {} devices, and at most {MAX_DEVICES} are read", devices.len());
            return Err(Invalid::new("constraints.latency", problem));
        }
        let mut budgets: Vec<DeviceBudget> = Vec::with_capacity(devices.len());
        for (index, device) in devices.into_iter().enumerate() {
            let place = match one {
                true => "constraints.latency".to_owned(),
                false => format!("constraints.latency[{index}]"),
            };
            let budget = device.checked(&place)?;
            if budgets.iter().any(|other| other.target_device == budget.target_device) {
                let name = budget.target_device.unwrap_or_default();
                let problem = format!("`{name}` stands twice: one device has one budget");
                return Err(Invalid::new(format!("{place}.target_device"), problem));
            }
            budgets.push(budget);
        }
        let size = self.size.unwrap_or_default();
        let memory = format!("{place}.max_peak_memory_mib");
        positive(self.max_peak_memory_mib, &memory, "memory")?;
        let per_op = per_op(self.max_per_op.unwrap_or_default(), catalog)
            .map_err(|e| Invalid::new(format!("{place}.{}", e.place), e.problem))?;
        let limits = Limits {
            max_flops: self.max_flops,
            min_flops: self.min_flops,
            max_params: size.params()?,
            max_weights_mib: positive(
                size.max_weights_mib,
                "constraints.size.max_weights_mib",
                "a size",
            )?,
            max_peak_memory_mib: self.max_peak_memory_mib,
            max_layers: self.max_layers,
            max_per_op: per_op,
        };
        if limits == Limits::default() && budgets.is_empty() {
            return Err(Invalid::new(place, "has no constraint: remove it, or give one"));
        }
        Ok((budgets, limits))
    }
}

impl DeviceDef {
    fn checked(self, place: &str) -> Result<DeviceBudget, Invalid> {
        let at = |field: &str| format!("{place}.{field}");
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let name = &self.target_device;
        if !(1..=50).contains(&name.len()) || !name.bytes().all(plain) {
            let problem = format!(
                "`{}` is no hardware id and no name of one: letters, digits, `-`, `_` and `.`, at most 50",
                ops_catalog::shown(name)
            );
            return Err(Invalid::new(at("target_device"), problem));
        }
        if self.max_ms.is_none() && self.max_energy_mj.is_none() {
            return Err(Invalid::new(place, "has no budget: give `max_ms`, or `max_energy_mj`"));
        }
        if self.table.as_ref().is_some_and(|table| table.as_os_str().is_empty()) {
            return Err(Invalid::new(at("table"), "is empty, and should be the name of a file"));
        }
        Ok(DeviceBudget {
            target_device: Some(self.target_device),
            table: self.table,
            max_ms: positive(self.max_ms, &at("max_ms"), "a latency")?,
            max_energy_mj: positive(self.max_energy_mj, &at("max_energy_mj"), "an energy")?,
        })
    }
}

impl SizeLimits {
    fn params(&self) -> Result<Option<u64>, Invalid> {
        let place = "constraints.size.max_params_m";
        match (self.max_params, positive(self.max_params_m, place, "a number of parameters")?) {
            (Some(_), Some(_)) => {
                Err(Invalid::new(place, "stands beside `max_params`: keep one of them"))
            }
            (params, None) => Ok(params),
            (None, Some(millions)) => {
                // Every number of parameters that a network can have is exact.
                let params = (millions * 1e6).round();
                if params > (1u64 << 53) as f64 {
                    return Err(Invalid::new(place, format!("{millions} millions are too many")));
                }
                Ok(Some(params as u64))
            }
        }
    }
}

impl Strategy {
    fn checked(self) -> Result<Strategy, Invalid> {
        if self.algorithm.trim().is_empty() {
            return Err(Invalid::new("strategy.algorithm", "is empty"));
        }
        if self.population_size == Some(0) {
            return Err(Invalid::new("strategy.population_size", "is 0; it is at least 1"));
        }
        Ok(self)
    }
}

fn check_flops(limits: &Limits) -> Result<(), Invalid> {
    match (limits.min_flops, limits.max_flops) {
        (Some(least), Some(most)) if least > most => {
            let problem = format!("is {least}, and max_flops is {most}: no network has both");
            Err(Invalid::new("min_flops", problem))
        }
        _ => Ok(()),
    }
}

/// A limit that is above zero and finite.
fn positive(limit: Option<f64>, place: &str, what: &str) -> Result<Option<f64>, Invalid> {
    match limit {
        Some(limit) if !(limit > 0.0 && limit.is_finite()) => {
            Err(Invalid::new(place, format!("is {limit}; {what} is above zero and finite")))
        }
        limit => Ok(limit),
    }
}

#[cfg(test)]
mod tests;
