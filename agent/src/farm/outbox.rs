//! What was measured, on its way to the coordinator: nothing in here is forgotten before it was
//! acknowledged, or refused for good and laid aside with the answer.

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

/// Waiting times between tries: doubling, capped, and spread by up to a half so that the boxes of a
/// farm do not all come back in the same second.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(500);
    const MOST: Duration = Duration::from_secs(60);
    /// However long the coordinator asks to be left alone, it is tried again after this.
    const LONGEST: Duration = Duration::from_secs(15 * 60);

    /// From the beginning.
    pub fn new() -> Backoff {
        Backoff { next: Backoff::FIRST }
    }

    /// How long to wait now: at least what the coordinator asked for, if it did.
    pub fn step(&mut self, asked: Option<Duration>) -> Duration {
        let own = self.next.mul_f64(0.5 + fastrand::f64() / 2.0);
        self.next = (self.next * 2).min(Backoff::MOST);
        // All agents were asked to wait equally long; jitter spreads them afterwards.
        own + asked.unwrap_or_default().min(Backoff::LONGEST)
    }
}

/// Measurements that the coordinator does not have yet.
pub struct Outbox {
    spool: Spool,
    /// Measurements that found no room on the disk.
    held: Vec<Measurement>,
    metrics: Arc<Metrics>,
    /// The process that sends.
    instance: Option<Instance>,
}

impl Outbox {
    /// On top of a spool, with what earlier runs left in it.
    pub fn new(spool: Spool, metrics: Arc<Metrics>) -> Outbox {
        Outbox { spool, held: Vec::new(), metrics, instance: None }
    }

    /// The same, sending in the name of this process.
    pub fn sent_by(mut self, instance: Instance) -> Outbox {
        self.instance = Some(instance);
        self
    }

    /// Takes a measurement in. One that the disk has no room for is kept in memory until it was sent
    /// or there is room again, and [`Outbox::is_blocked`] until then.
    pub fn add(&mut self, measurement: Measurement) {
        self.metrics.measured(measurement.status);
        if let Err(e) = self.spool.add(&measurement) {
            tracing::error!("{e:#}; it is sent directly, and no new work begins before");
            self.held.push(measurement);
        }
        self.count();
    }

    /// Whether something is kept in memory only: then no new work may begin.
    pub fn is_blocked(&self) -> bool {
        !self.held.is_empty()
    }

    /// Sends everything, once: what is in memory only comes first.
    ///
    /// What the coordinator refuses for good is moved out of the way together with its answer.
    ///
    /// # Errors
    /// When the coordinator cannot be reached, is in trouble, or does not know this agent (the rest
    /// stays), or the spool cannot be read.
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

    /// Sends a batch; the coordinator has it then, except for what it refused for good.
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

    /// The last word, when the agent ends: what is on the disk waits there for the next start.
    ///
    /// # Errors
    /// When measurements are in memory only, and are lost with it.
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

    /// Where what was not sent lies.
    pub fn folder(&self) -> &std::path::Path {
        self.spool.folder()
    }

    fn count(&self) {
        self.metrics.waiting(self.spool.len(), self.held.len());
    }
}

/// Sends measurements and returns those that were refused for good, with the reasons. A batch that is
/// refused as a whole is halved, so that one measurement, or the size of all, keeps no other out.
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

/// Whether the coordinator itself refused what was sent, and will refuse it again. A refused credential says nothing
/// about the measurements, nor does a second process that speaks for the agent. An answer that is not understood does
/// not come from the coordinator.
fn is_final(error: &ClientError) -> bool {
    !is_cloned(error)
        && matches!(error.status(), Some(status) if (400..500).contains(&status)
            && !matches!(status, 401 | 403 | 408 | 429))
}

#[cfg(test)]
#[path = "outbox/tests.rs"]
mod tests;
