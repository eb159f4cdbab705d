//! What is kept in memory and written every few seconds in one transaction: when agents were last heard of, what they
//! said of themselves, and which tokens were used.
//!
//! A crash loses the last few seconds of it and nothing else: no lease and no result depends on it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use latlas_shared::Telemetry;

use crate::store::to_json;

/// What an agent's last calls said, until it is written.
#[derive(Debug, Clone)]
pub struct Heard {
    pub at: Timestamp,
    /// As JSON; none when no heartbeat has come since it was last written.
    pub telemetry: Option<String>,
}

/// What is not yet written.
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
    /// What is noted, to be looked at.
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

    /// Notes that an agent lives, and what it said of itself if it did.
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

    /// Takes all notes out, to be written.
    pub fn take(&self) -> Notes {
        std::mem::take(&mut *self.notes())
    }

    /// What could not be written waits again, except where something newer has come.
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
