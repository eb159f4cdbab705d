//! Notes in memory that are written every few seconds in one transaction: when agents were last heard of, their last
//! telemetry, and which tokens were used.
//!
//! A crash loses only the notes of the last few seconds: no lease and no result depends on them.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use latlas_shared::Telemetry;

use crate::store::to_json;

/// The content of an agent's last calls, until it is written.
#[derive(Debug, Clone)]
pub struct Heard {
    pub at: Timestamp,
    /// As JSON; none if no heartbeat has arrived since the last write.
    pub telemetry: Option<String>,
}

/// Notes that are not yet written.
#[derive(Debug, Default)]
pub struct Notes {
    /// By agent.
    pub heard: HashMap<i64, Heard>,
    /// When tokens were last used, by token.
    pub uses: HashMap<i64, Timestamp>,
}

/// The notes of this process.
#[derive(Debug, Default)]
pub struct Unwritten(Mutex<Notes>);

impl Unwritten {
    /// The notes, locked.
    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops the notes about an agent up to now.
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

    /// Notes that an agent is alive, and its telemetry if there is any.
    pub fn heard_of(&self, agent: i64, telemetry: Option<&Telemetry>, now: Timestamp) {
        let telemetry = telemetry.map(to_json);
        let mut notes = self.notes();
        let heard = notes.heard.entry(agent).or_insert(Heard { at: now, telemetry: None });
        heard.at = now;
        heard.telemetry = telemetry.or(heard.telemetry.take());
    }

    /// When an agent was last heard of, if that is not yet written.
    pub fn last_heard(&self, agent: i64) -> Option<Timestamp> {
        self.notes().heard.get(&agent).map(|heard| heard.at)
    }

    /// Takes all notes, to be written.
    pub fn take(&self) -> Notes {
        std::mem::take(&mut *self.notes())
    }

    /// Returns notes that could not be written, except where newer ones exist.
    pub fn put_back(&self, failed: Notes) {
        let mut notes = self.notes();
        for (agent, heard) in failed.heard {
            notes.heard.entry(agent).or_insert(heard);
        }
        for (token, at) in failed.uses {
            notes.uses.entry(token).or_insert(at);
        }
    }
}
