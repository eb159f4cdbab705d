//! Agents' reports between results: heartbeats and telemetry. A report costs no write when it arrives.

use futures_util::FutureExt as _;
use jiff::Timestamp;
use latlas_shared::Telemetry;
use latlas_shared::api::{Heartbeat, Instance};
use sqlx::types::Text;
use uuid::Uuid;

use super::agents::Agent;
use super::columns::StoredTime;
use super::db::Tx;
use super::{Store, StoreError, micros, to_json};
use crate::rules::lease;

impl Store {
    /// Whether a process is accepted for an agent; if another one is registered, when that one last spoke.
    ///
    /// # Errors
    /// When another process is registered for the agent.
    pub fn hear(&self, agent: &Agent, speaker: &Instance, now: Timestamp) -> Result<(), Timestamp> {
        self.hub.presence.hear(agent.id, speaker, now)
    }

    /// Notes the further content of a heartbeat. `cancelled` are those of its leases that are no longer its own.
    pub fn note(&self, agent: &Agent, beat: &Heartbeat, cancelled: &[Uuid], now: Timestamp) {
        let own: Vec<Uuid> =
            beat.leases.iter().filter(|id| !cancelled.contains(id)).copied().collect();
        self.hub.presence.note(agent.id, beat, &own, now);
    }

    /// Notes that an agent has called. Costs no write.
    pub fn has_called(&self, agent: &Agent, now: Timestamp) {
        self.heard_of(agent, None, now);
    }

    /// Notes that an agent is alive. Costs no write.
    pub(super) fn heard_of(&self, agent: &Agent, telemetry: Option<&Telemetry>, now: Timestamp) {
        self.hub.unwritten.heard_of(agent.id, telemetry, now);
    }

    /// Notes that an agent is alive, and returns those of `leases` that are no longer its own. Costs no write: see
    /// [`Store::write_notes`].
    ///
    /// # Errors
    /// When the store fails.
    pub async fn heartbeat(
        &self,
        agent: &Agent,
        leases: &[Uuid],
        telemetry: &Telemetry,
        now: Timestamp,
    ) -> Result<Vec<Uuid>, StoreError> {
        self.heard_of(agent, Some(telemetry), now);
        if leases.is_empty() {
            return Ok(Vec::new());
        }
        let held: Vec<(Text<Uuid>, StoredTime)> =
            sqlx::query_as("SELECT id, deadline FROM leases WHERE agent_id = ?1")
                .bind(agent.id)
                .fetch_all(&self.db.readers)
                .await?;
        let live = held.into_iter().filter(|(_, deadline)| lease::is_live(deadline.0, now));
        let live: Vec<Uuid> = live.map(|(Text(id), _)| id).collect();
        Ok(leases.iter().filter(|id| !live.contains(id)).copied().collect())
    }

    /// When an agent was last heard of, given what is stored.
    pub(super) fn last_heard(&self, agent: i64, stored: Timestamp) -> Timestamp {
        self.hub.unwritten.last_heard(agent).unwrap_or(stored)
    }

    /// Writes when agents were last heard of and which tokens were used. Called every few seconds, and before the end.
    ///
    /// # Errors
    /// When the store fails; the notes are then kept for the next call.
    pub async fn write_notes(&self) -> Result<(), StoreError> {
        let notes = self.hub.unwritten.take();
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

/// Both arguments are JSON arrays.
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
