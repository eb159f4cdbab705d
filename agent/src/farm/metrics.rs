//! The agent's own metrics for Prometheus, if they are enabled.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use axum::Router;
use axum::http::header;
use axum::routing::get;
use jiff::Timestamp;
use latlas_shared::{HardwareId, Status};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

/// The media type of the answer.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The agent's metrics. Their labels are few and fixed.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    measured: Family<[(&'static str, &'static str); 1], Counter>,
    acknowledged: Counter,
    refused: Counter,
    failed_uploads: Counter,
    spooled: Gauge,
    held: Gauge,
    leased: Gauge,
    answered: Gauge,
}

impl Metrics {
    /// All metrics at zero.
    pub fn new(hardware_id: &HardwareId, run_config: &str) -> Metrics {
        let mut metrics = Metrics {
            registry: Registry::with_prefix("latlas_agent"),
            measured: Family::default(),
            acknowledged: Counter::default(),
            refused: Counter::default(),
            failed_uploads: Counter::default(),
            spooled: Gauge::default(),
            held: Gauge::default(),
            leased: Gauge::default(),
            answered: Gauge::default(),
        };
        for status in [Status::Ok, Status::NotConverged, Status::Degraded, Status::Failed] {
            metrics.measured.get_or_create(&[("status", status.name())]).inc_by(0);
        }
        metrics.register(hardware_id, run_config);
        metrics
    }

    fn register(&mut self, hardware_id: &HardwareId, run_config: &str) {
        let build = Info::new([
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
            ("hardware_id", hardware_id.to_string()),
            ("run_config", run_config.to_owned()),
        ]);
        let r = &mut self.registry;
        r.register("build", "The agent's version, and what it measures", build);
        r.register("measurements", "Measurements that were made", self.measured.clone());
        let help = "Measurements that the coordinator has";
        r.register("acknowledged_measurements", help, self.acknowledged.clone());
        let help = "Measurements that the coordinator refused for good";
        r.register("refused_measurements", help, self.refused.clone());
        let help = "Uploads that came to nothing and are tried again";
        r.register("failed_uploads", help, self.failed_uploads.clone());
        r.register(
            "spooled_measurements",
            "Measurements that wait on the disk",
            self.spooled.clone(),
        );
        let help =
            "Measurements that the disk has no room for; no new work begins while there are any";
        r.register("held_measurements", help, self.held.clone());
        r.register(
            "leased_tasks",
            "Tasks of the lease that are not measured yet",
            self.leased.clone(),
        );
        let help = "When the coordinator last answered, in seconds since 1970; 0 before";
        r.register("coordinator_answered_timestamp_seconds", help, self.answered.clone());
    }

    /// Counts a measurement.
    pub fn measured(&self, status: Status) {
        self.measured.get_or_create(&[("status", status.name())]).inc();
    }

    /// Counts the results of an answered batch.
    pub fn sent(&self, acknowledged: usize, refused: usize) {
        self.acknowledged.inc_by(acknowledged as u64);
        self.refused.inc_by(refused as u64);
        self.answered();
    }

    /// Notes that the coordinator answered.
    pub fn answered(&self) {
        self.answered.set(Timestamp::now().as_second());
    }

    /// Counts a failed upload.
    pub fn upload_failed(&self) {
        self.failed_uploads.inc();
    }

    /// Sets the number of unsent measurements, on disk and in memory.
    pub fn waiting(&self, spooled: usize, held: usize) {
        self.spooled.set(i64::try_from(spooled).unwrap_or(i64::MAX));
        self.held.set(i64::try_from(held).unwrap_or(i64::MAX));
    }

    /// Sets the number of tasks that are still to be measured.
    pub fn leased(&self, tasks: usize) {
        self.leased.set(i64::try_from(tasks).unwrap_or(i64::MAX));
    }

    fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a string takes all text");
        text
    }
}

/// Serves the metrics at `/metrics`, as long as the runtime lives.
///
/// # Errors
/// When the address cannot be bound.
pub async fn serve(address: SocketAddr, metrics: Arc<Metrics>) -> Result<()> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("--metrics {address}: choose another address or port"))?;
    tracing::info!("metrics at http://{}/metrics", listener.local_addr()?);
    let answer = move || {
        let text = metrics.text();
        async move { ([(header::CONTENT_TYPE, OPEN_METRICS)], text) }
    };
    let routes = Router::new().route("/metrics", get(answer));
    tokio::spawn(async move {
        if let Err(e) = axum::serve(listener, routes).await {
            tracing::error!("metrics end: {e}");
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_every_number() {
        let metrics = Metrics::new(&"test.cpu".parse().unwrap(), "f32");
        metrics.measured(Status::Ok);
        metrics.sent(3, 1);
        metrics.upload_failed();
        metrics.waiting(5, 2);
        metrics.leased(7);
        let text = metrics.text();
        for line in [
            "latlas_agent_measurements_total{status=\"ok\"} 1",
            "latlas_agent_measurements_total{status=\"failed\"} 0",
            "latlas_agent_acknowledged_measurements_total 3",
            "latlas_agent_refused_measurements_total 1",
            "latlas_agent_failed_uploads_total 1",
            "latlas_agent_spooled_measurements 5",
            "latlas_agent_held_measurements 2",
            "latlas_agent_leased_tasks 7",
            "# EOF",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        assert!(text.contains("hardware_id=\"test.cpu\""), "{text}");
    }
}
