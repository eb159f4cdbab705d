//! The coordinator's own metrics for Prometheus. Labels have few values: routes as written in the code, statuses,
//! states and hardware ids; never an agent, a key or a token.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::store::FarmCounts;

/// Prefix of every name.
const PREFIX: &str = "latlas";

/// Upper bounds of the histogram's buckets, in seconds: look-ups, writes, long polls.
const BUCKETS: [f64; 12] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 20.0, 60.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    method: &'static str,
    route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    method: &'static str,
    route: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfHardware {
    hardware_id: String,
    state: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfKind {
    kind: String,
}

type Histograms = Family<Call, Histogram, fn() -> Histogram>;

/// Counters of this process. Everything else is counted in the store when metrics are read.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<Answered, Counter>,
    durations: Histograms,
    results: Family<Outcome, Counter>,
    alarms: Family<Outcome, Counter>,
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Metrics {
        let mut registry = Registry::with_prefix(PREFIX);
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The coordinator's version", build);
        let requests = Family::default();
        let help = "Answered calls";
        registry.register("http_requests", help, requests.clone());
        let durations = Histograms::new_with_constructor(|| Histogram::new(BUCKETS));
        let help = "Time until an answer began; a poll for tasks waits for work";
        registry.register_with_unit(
            "http_request_duration",
            help,
            Unit::Seconds,
            durations.clone(),
        );
        let results = Family::<Outcome, Counter>::default();
        registry.register("results", "Measurements that agents sent", results.clone());
        for outcome in ["stored", "known", "refused"] {
            results.get_or_create(&Outcome { outcome }).inc_by(0);
        }
        let alarms = Family::<Outcome, Counter>::default();
        registry.register("alarms", "Calls of the alarm command", alarms.clone());
        for outcome in ["delivered", "failed", "dropped"] {
            alarms.get_or_create(&Outcome { outcome }).inc_by(0);
        }
        Metrics { registry, requests, durations, results, alarms }
    }

    /// Counts an alarm: the command was `delivered` or `failed`, or was too busy (`dropped`).
    pub fn alarm(&self, outcome: &'static str) {
        self.alarms.get_or_create(&Outcome { outcome }).inc();
    }

    /// Counts an answered call. `route` is one of the router's routes, and `method` one of a few.
    pub fn answered(&self, method: &'static str, route: &str, status: u16, after: Duration) {
        let route = route.to_owned();
        let call = Call { method, route: route.clone() };
        self.durations.get_or_create(&call).observe(after.as_secs_f64());
        self.requests.get_or_create(&Answered { method, route, status }).inc();
    }

    /// Counts measurements that arrived: newly stored, already known, refused.
    pub fn results(&self, stored: u32, known: u32, refused: usize) {
        let add = |outcome, n| self.results.get_or_create(&Outcome { outcome }).inc_by(n);
        add("stored", u64::from(stored));
        add("known", u64::from(known));
        add("refused", refused as u64);
    }

    /// All metrics in the OpenMetrics text format.
    pub fn text(&self, farm: &FarmCounts, now: Timestamp) -> String {
        let mut text = String::new();
        encode_registry(&mut text, &self.registry)
            .and_then(|()| encode_registry(&mut text, &registry_of(farm, now)))
            .and_then(|()| encode_eof(&mut text))
            .expect("a string takes all text");
        text
    }
}

/// The farm as gauges.
fn registry_of(farm: &FarmCounts, now: Timestamp) -> Registry {
    let mut registry = Registry::with_prefix(PREFIX);
    let mut by_hardware = |name, help, counts: &[(String, String, i64)]| {
        let family = Family::<OfHardware, Gauge>::default();
        for (hardware_id, state, count) in counts {
            let labels = OfHardware { hardware_id: hardware_id.clone(), state: state.clone() };
            family.get_or_create(&labels).set(*count);
        }
        registry.register(name, help, family);
    };
    by_hardware("tasks", "Tasks by class of device and state", &farm.tasks);
    by_hardware("agents", "Enrolled agents by class of device and state", &farm.agents);
    let incidents = Family::<OfKind, Gauge>::default();
    for (kind, count) in &farm.incidents {
        incidents.get_or_create(&OfKind { kind: kind.clone() }).set(*count);
    }
    registry.register("incidents", "Incidents that go on, by kind", incidents);
    let mut one = |name, help, value: i64| {
        let gauge: Gauge = Gauge::default();
        gauge.set(value);
        registry.register(name, help, gauge);
    };
    one("leases", "Leases that agents hold", farm.leases);
    one("dirty_places", "Rows and measured networks behind their measurements", farm.dirty);
    let help = "Stored measurements that this version can't read and leaves out";
    one("unreadable_measurements", help, farm.unreadable);
    one("database_size_bytes", "Size of the database and its log on the disk", farm.database_bytes);
    let age = farm.oldest_queued.map_or(0.0, |at| now.duration_since(at).as_secs_f64().max(0.0));
    let oldest = Gauge::<f64, AtomicU64>::default();
    oldest.set(age);
    let help = "Time since the oldest request that still has a task in the queue; 0 without one";
    registry.register("oldest_queued_request_age_seconds", help, oldest);
    registry
}
