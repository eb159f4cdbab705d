//! The queue of measurements to the coordinator. A measurement stays until it is acknowledged. A measurement that is
//! refused for good is moved aside together with the answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use latlas_client::{Client, ClientError};
use latlas_shared::Measurement;
use latlas_shared::api::{Instance, Results, ResultsAnswer};
use uuid::Uuid;

use super::metrics::Metrics;
use super::orders::is_cloned;
use crate::spool::Spool;

/// The most measurements of one batch.
const BATCH: usize = 100;

/// Waiting times between retries: exponential with a cap, and a jitter of up to one half so that the boxes of a farm do
/// not retry in the same second.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(500);
    const MOST: Duration = Duration::from_secs(60);
    /// The longest wait, whatever the coordinator asks for.
    const LONGEST: Duration = Duration::from_secs(15 * 60);

    /// The initial back-off.
    pub fn new() -> Backoff {
        Backoff { next: Backoff::FIRST }
    }

    /// The time to wait now: at least the time that the coordinator asked for, if it did.
    pub fn step(&mut self, asked: Option<Duration>) -> Duration {
        let own = self.next.mul_f64(0.5 + fastrand::f64() / 2.0);
        self.next = (self.next * 2).min(Backoff::MOST);
        // The coordinator asks all agents to wait equally long, so jitter is added.
        own + asked.unwrap_or_default().min(Backoff::LONGEST)
    }
}

/// Measurements that the coordinator does not have yet.
pub struct Outbox {
    spool: Spool,
    /// Measurements that the disk has no space for.
    held: Vec<Measurement>,
    metrics: Arc<Metrics>,
    /// The sending process.
    instance: Option<Instance>,
}

impl Outbox {
    /// An outbox on a spool, including the measurements that earlier runs left in it.
    pub fn new(spool: Spool, metrics: Arc<Metrics>) -> Outbox {
        Outbox { spool, held: Vec::new(), metrics, instance: None }
    }

    /// The same outbox, sending as this process.
    pub fn sent_by(mut self, instance: Instance) -> Outbox {
        self.instance = Some(instance);
        self
    }

    /// Adds a measurement. If the disk is full, the measurement is kept in memory until it is sent or there is space
    /// again. Until then, [`Outbox::is_blocked`] is true.
    pub fn add(&mut self, measurement: Measurement) {
        self.metrics.measured(measurement.status);
        if let Err(e) = self.spool.add(&measurement) {
            tracing::error!("{e:#}; it is sent directly, and no new work begins before");
            self.held.push(measurement);
        }
        self.count();
    }

    /// Whether some measurements are only in memory. If so, no new work may begin.
    pub fn is_blocked(&self) -> bool {
        !self.held.is_empty()
    }

    /// Sends everything once, starting with measurements that are only in memory.
    ///
    /// A measurement that the coordinator refuses for good is moved aside together with its answer.
    ///
    /// # Errors
    /// When the coordinator cannot be reached, fails, or does not know this agent (unsent measurements stay), or the
    /// spool cannot be read.
    pub async fn upload(&mut self, client: &Client) -> Result<()> {
        self.held.retain(|measurement| self.spool.add(measurement).is_err());
        let sent = self.send_all(client).await;
        self.count();
        if sent.is_err() {
            self.metrics.upload_failed();
        }
        sent.context("sending results")
    }

    async fn send_all(&mut self, client: &Client) -> Result<()> {
        while !self.held.is_empty() {
            let batch: Vec<Measurement> = self.held.iter().take(BATCH).cloned().collect();
            let sent = batch.len();
            let refused = self.send(client, batch).await?;
            for measurement in self.held.drain(..sent) {
                if let Some(reason) = refused.get(&measurement.id) {
                    self.spool.add_refused(&measurement, reason);
                }
            }
        }
        loop {
            let batch = self.spool.oldest(BATCH)?;
            if batch.is_empty() {
                return Ok(());
            }
            let ids: Vec<Uuid> = batch.iter().map(|measurement| measurement.id).collect();
            let refused = self.send(client, batch).await?;
            for id in ids {
                match refused.get(&id) {
                    Some(reason) => self.spool.refuse(id, reason)?,
                    None => self.spool.acknowledge(id)?,
                }
            }
        }
    }

    /// Sends a batch. Afterwards the coordinator has it, except the measurements that it refused for good.
    async fn send(
        &self,
        client: &Client,
        batch: Vec<Measurement>,
    ) -> Result<BTreeMap<Uuid, String>, ClientError> {
        let sent = batch.len();
        let refused = deliver(client, batch, self.instance.as_ref()).await?;
        for (id, reason) in &refused {
            tracing::warn!("measurement {id} was refused: {reason}");
        }
        self.metrics.sent(sent - refused.len(), refused.len());
        Ok(refused)
    }

    /// Called when the agent ends. Unsent measurements on disk stay for the next start.
    ///
    /// # Errors
    /// When measurements are only in memory, and are lost at the end of the process.
    pub fn close(&self) -> Result<()> {
        if self.is_blocked() {
            let lost: Vec<String> = self.held.iter().map(|m| m.subject.to_string()).collect();
            bail!(
                "{} measurements could be neither stored in {} nor sent, and are lost; their tasks \
                 go to the queue again: {}",
                lost.len(),
                self.spool.folder().display(),
                lost.join(", ")
            );
        }
        match self.spool.len() {
            0 => {}
            left => tracing::warn!(
                "{left} measurements wait in {} for the next start",
                self.spool.folder().display()
            ),
        }
        Ok(())
    }

    /// The folder of unsent measurements.
    pub fn folder(&self) -> &std::path::Path {
        self.spool.folder()
    }

    fn count(&self) {
        self.metrics.waiting(self.spool.len(), self.held.len());
    }
}

/// Sends measurements and returns those that were refused for good, with the reasons. A batch that is refused as a
/// whole is split in two, so that a single bad measurement or the total size blocks no other measurement.
async fn deliver(
    client: &Client,
    batch: Vec<Measurement>,
    instance: Option<&Instance>,
) -> Result<BTreeMap<Uuid, String>, ClientError> {
    let mut refused = BTreeMap::new();
    let mut parts = vec![batch];
    while let Some(mut part) = parts.pop() {
        let clock = Some(Timestamp::now());
        let results = Results { measurements: part, instance: instance.cloned(), clock };
        let answer: Result<ResultsAnswer, _> = client.post("v1/results", &results).await;
        part = results.measurements;
        match answer {
            Ok(answer) => refused.extend(answer.refused),
            Err(e) if !is_final(&e) => return Err(e),
            Err(e) if part.len() == 1 => {
                refused.extend(part.iter().map(|measurement| (measurement.id, e.to_string())));
            }
            Err(_) => {
                let rest = part.split_off(part.len() / 2);
                parts.extend([rest, part]);
            }
        }
    }
    Ok(refused)
}

/// Whether the coordinator itself refused the measurements, and will refuse them again. A refused credential is not
/// about the measurements, and neither is a second process with the same credential. An answer that is not understood
/// does not come from the coordinator.
fn is_final(error: &ClientError) -> bool {
    !is_cloned(error)
        && matches!(error.status(), Some(status) if (400..500).contains(&status)
            && !matches!(status, 401 | 403 | 408 | 429))
}

#[cfg(test)]
#[path = "outbox/tests.rs"]
mod tests;
