//! Sending what is in the spool.

use std::time::Duration;

use anyhow::{Context, Result};
use latlas_shared::api::{Results, ResultsAnswer};
use latlas_shared::client::Client;

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

    /// From the beginning.
    pub fn new() -> Backoff {
        Backoff { next: Backoff::FIRST }
    }

    /// How long to wait now.
    pub fn step(&mut self) -> Duration {
        let wait = self.next.mul_f64(0.5 + fastrand::f64() / 2.0);
        self.next = (self.next * 2).min(Backoff::MOST);
        wait
    }
}

/// Sends everything in the spool, once.
///
/// What the coordinator refuses for good is moved out of the way together with its answer. A batch that
/// is refused as a whole is sent again in parts, so that one measurement takes no other with it.
///
/// # Errors
/// When the coordinator cannot be reached or is in trouble (the rest stays in the spool), or the spool cannot be
/// read.
pub async fn upload(client: &Client, spool: &Spool) -> Result<()> {
    let mut batch = BATCH;
    loop {
        let measurements = spool.oldest(batch)?;
        if measurements.is_empty() {
            return Ok(());
        }
        let ids: Vec<_> = measurements.iter().map(|measurement| measurement.id).collect();
        let answer: Result<ResultsAnswer, _> =
            client.post("v1/results", &Results { measurements }).await;
        match answer {
            Ok(answer) => {
                for id in ids {
                    match answer.refused.get(&id) {
                        Some(reason) => {
                            tracing::warn!("measurement {id} was refused: {reason}");
                            spool.refuse(id, reason)?;
                        }
                        None => spool.acknowledge(id)?,
                    }
                }
            }
            Err(e) if e.is_transient() || matches!(e.status(), Some(401 | 403)) => {
                return Err(e).context("sending results");
            }
            Err(e) => match ids.as_slice() {
                [id] => {
                    tracing::warn!("measurement {id} was refused: {e}");
                    spool.refuse(*id, &e.to_string())?;
                    batch = BATCH;
                }
                ids => batch = ids.len() / 2,
            },
        }
    }
}
