//! When agents were last heard of, and what they said of themselves: kept in memory and written every few
//! seconds, all agents in one transaction.
//!
//! A crash loses the last few seconds of it and nothing else: no lease and no result hangs on it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt as _;
use jiff::Timestamp;
use latlas_shared::Telemetry;

use super::{Agent, Store, StoreError, micros, to_json};

/// What an agent's last calls said, until it is written.
#[derive(Debug, Clone)]
struct Heard {
    at: Timestamp,
    /// As JSON; none when no heartbeat has come since it was last written.
    telemetry: Option<String>,
}

/// What is not yet written, by agent.
#[derive(Debug, Default)]
pub(super) struct LastHeard(Mutex<HashMap<i64, Heard>>);

impl LastHeard {
    fn unwritten(&self) -> MutexGuard<'_, HashMap<i64, Heard>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> HashMap<i64, Heard> {
        std::mem::take(&mut *self.unwritten())
    }

    /// Drops what an agent said until now.
    pub(super) fn forget(&self, agent: i64, now: Timestamp) {
        let mut unwritten = self.unwritten();
        if unwritten.get(&agent).is_some_and(|heard| heard.at <= now) {
            unwritten.remove(&agent);
        }
    }

    /// What could not be written waits again, except where something newer has come.
    fn put_back(&self, heard: HashMap<i64, Heard>) {
        let mut unwritten = self.unwritten();
        for (agent, heard) in heard {
            unwritten.entry(agent).or_insert(heard);
        }
    }
}

impl Store {
    /// Notes that an agent has called. Costs no write.
    pub fn has_called(&self, agent: &Agent, now: Timestamp) {
        self.heard_of(agent, None, now);
    }

    /// Notes that an agent lives. Costs no write.
    pub(super) fn heard_of(&self, agent: &Agent, telemetry: Option<&Telemetry>, now: Timestamp) {
        let telemetry = telemetry.map(to_json);
        let mut unwritten = self.shared.heard.unwritten();
        let heard = unwritten.entry(agent.id).or_insert(Heard { at: now, telemetry: None });
        heard.at = now;
        heard.telemetry = telemetry.or(heard.telemetry.take());
    }

    /// When an agent was last heard of, given what is stored.
    pub(super) fn last_heard(&self, agent: i64, stored: Timestamp) -> Timestamp {
        self.shared.heard.unwritten().get(&agent).map_or(stored, |heard| heard.at)
    }

    /// Writes down when agents were last heard of. To be called every few seconds, and before the end.
    ///
    /// # Errors
    /// When the store fails; then it is kept for the next call.
    pub async fn write_heard(&self) -> Result<(), StoreError> {
        let heard = self.shared.heard.take();
        if heard.is_empty() {
            return Ok(());
        }
        let entries: Vec<(i64, i64, &Option<String>)> = heard
            .iter()
            .map(|(&agent, heard)| (agent, micros(heard.at), &heard.telemetry))
            .collect();
        let entries = to_json(&entries);
        let written = self
            .write(|tx| {
                async move {
                    sqlx::query(
                        "UPDATE agents
                         SET seen_at = heard.value ->> 1,
                             telemetry = coalesce(heard.value ->> 2, telemetry)
                         FROM json_each(?1) AS heard WHERE agents.id = heard.value ->> 0",
                    )
                    .bind(entries)
                    .execute(&mut **tx)
                    .await?;
                    Ok(())
                }
                .boxed()
            })
            .await;
        if written.is_err() {
            self.shared.heard.put_back(heard);
        }
        written
    }
}
