//! What is kept in memory and written every few seconds in one transaction: when agents were last heard of, what they
//! said of themselves, and which tokens were used.
//!
//! A crash loses the last few seconds of it and nothing else: no lease and no result depends on it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt as _;
use jiff::Timestamp;
use latlas_shared::Telemetry;

use super::db::Tx;
use super::{Agent, Store, StoreError, micros, to_json};

/// What an agent's last calls said, until it is written.
#[derive(Debug, Clone)]
struct Heard {
    at: Timestamp,
    /// As JSON; none when no heartbeat has come since it was last written.
    telemetry: Option<String>,
}

/// What is not yet written.
#[derive(Debug, Default)]
struct Notes {
    /// By agent.
    heard: HashMap<i64, Heard>,
    /// When tokens were last used, by token.
    uses: HashMap<i64, Timestamp>,
}

/// The notes of this process.
#[derive(Debug, Default)]
pub(super) struct Unwritten(Mutex<Notes>);

impl Unwritten {
    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops what an agent said until now.
    pub fn forget(&self, agent: i64, now: Timestamp) {
        let heard = &mut self.notes().heard;
        if heard.get(&agent).is_some_and(|heard| heard.at <= now) {
            heard.remove(&agent);
        }
    }

    /// Notes that a token was used.
    pub fn used(&self, token: i64, now: Timestamp) {
        self.notes().uses.insert(token, now);
    }

    /// What could not be written waits again, except where something newer has come.
    fn put_back(&self, failed: Notes) {
        let mut notes = self.notes();
        for (agent, heard) in failed.heard {
            notes.heard.entry(agent).or_insert(heard);
        }
        for (token, at) in failed.uses {
            notes.uses.entry(token).or_insert(at);
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
        let mut notes = self.hub.unwritten.notes();
        let heard = notes.heard.entry(agent.id).or_insert(Heard { at: now, telemetry: None });
        heard.at = now;
        heard.telemetry = telemetry.or(heard.telemetry.take());
    }

    /// When an agent was last heard of, given what is stored.
    pub(super) fn last_heard(&self, agent: i64, stored: Timestamp) -> Timestamp {
        self.hub.unwritten.notes().heard.get(&agent).map_or(stored, |heard| heard.at)
    }

    /// Writes down when agents were last heard of and which tokens were used. To be called every few seconds, and
    /// before the end.
    ///
    /// # Errors
    /// When the store fails; then it is kept for the next call.
    pub async fn write_notes(&self) -> Result<(), StoreError> {
        let notes = std::mem::take(&mut *self.hub.unwritten.notes());
        if notes.heard.is_empty() && notes.uses.is_empty() {
            return Ok(());
        }
        let heard: Vec<(i64, i64, &Option<String>)> = notes
            .heard
            .iter()
            .map(|(&agent, heard)| (agent, micros(heard.at), &heard.telemetry))
            .collect();
        let uses: Vec<(i64, i64)> =
            notes.uses.iter().map(|(&token, &at)| (token, micros(at))).collect();
        let texts = (to_json(&heard), to_json(&uses));
        let written =
            self.db.write(texts, |(heard, uses), tx| write(tx, heard, uses).boxed()).await;
        if written.is_err() {
            self.hub.unwritten.put_back(notes);
        }
        written
    }
}

/// Both are JSON arrays.
async fn write(tx: &mut Tx, heard: &str, uses: &str) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE agents
         SET seen_at = heard.value ->> 1, telemetry = coalesce(heard.value ->> 2, telemetry)
         FROM json_each(?1) AS heard WHERE agents.id = heard.value ->> 0",
    )
    .bind(heard)
    .execute(&mut **tx)
    .await?;
    sqlx::query(
        "UPDATE tokens SET used_at = used.value ->> 1
         FROM json_each(?1) AS used WHERE tokens.id = used.value ->> 0",
    )
    .bind(uses)
    .execute(&mut **tx)
    .await?;
    Ok(())
}
