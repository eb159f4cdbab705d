//! Incidents that the host was told about, so that each is reported once.

use std::collections::BTreeMap;

use futures_util::FutureExt as _;
use jiff::Timestamp;

use super::columns::StoredTime;
use super::db::Tx;
use super::{Store, StoreError, micros, readable, to_json};
use crate::rules::incidents::{Alarm, Incident};

impl Store {
    /// Notes the current incidents by their subjects. Returns the incidents that have begun or ended since the last
    /// call.
    ///
    /// # Errors
    /// When the store fails; then nothing is noted.
    pub async fn note_incidents(
        &self,
        mut is: BTreeMap<String, Incident>,
        now: Timestamp,
    ) -> Result<Vec<Alarm>, StoreError> {
        let open: Vec<(i64, String, String, StoredTime)> = sqlx::query_as(
            "SELECT id, subject, incident, opened_at FROM incidents WHERE resolved_at IS NULL ORDER BY id",
        )
        .fetch_all(&self.db.readers)
        .await?;
        let (mut over, mut unreadable) = (Vec::new(), Vec::new());
        for (id, subject, incident, StoredTime(opened_at)) in open {
            // A continuing incident is already known.
            if is.remove(&subject).is_some() {
                continue;
            }
            let Some(incident) = readable("an incident", &incident) else {
                unreadable.push(id);
                continue;
            };
            over.push(Alarm { event: "resolved", id, opened_at, resolved_at: Some(now), incident });
        }
        if over.is_empty() && is.is_empty() && unreadable.is_empty() {
            return Ok(over);
        }
        let ended: Vec<i64> = over.iter().map(|alarm| alarm.id).chain(unreadable).collect();
        let begun = self
            .db
            .write((ended, is), move |(ended, begun), tx| write(tx, ended, begun, now).boxed())
            .await?;
        Ok(over.into_iter().chain(begun).collect())
    }
}

/// Writes ended and new incidents, and returns the new ones.
async fn write(
    tx: &mut Tx,
    ended: &[i64],
    begun: &BTreeMap<String, Incident>,
    now: Timestamp,
) -> Result<Vec<Alarm>, StoreError> {
    for id in ended {
        sqlx::query("UPDATE incidents SET resolved_at = ?1 WHERE id = ?2")
            .bind(StoredTime(now))
            .bind(id)
            .execute(&mut **tx)
            .await?;
    }
    let mut alarms = Vec::with_capacity(begun.len());
    for (subject, incident) in begun {
        let id = sqlx::query_scalar(
            "INSERT INTO incidents (subject, incident, opened_at) VALUES (?1, ?2, ?3) RETURNING id",
        )
        .bind(subject)
        .bind(to_json(incident))
        .bind(StoredTime(now))
        .fetch_one(&mut **tx)
        .await?;
        // The same precision as in the event of its end.
        let opened_at = Timestamp::from_microsecond(micros(now)).unwrap_or(now);
        let incident = incident.clone();
        alarms.push(Alarm { event: "opened", id, opened_at, resolved_at: None, incident });
    }
    Ok(alarms)
}
