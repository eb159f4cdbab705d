//! An agent as a state machine: what survives a crash, what is lost, and its next action.

use std::collections::{BTreeSet, VecDeque};

use jiff::Timestamp;
use uuid::Uuid;

use super::{Answer, Call, Leased, Millis, POISON, Report};

/// Most reports of one upload.
const BATCH: usize = 3;

/// A lease and its work.
#[derive(Debug)]
struct Work {
    id: Uuid,
    todo: VecDeque<(i64, usize, u32)>,
}

/// An action after a delay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Checks for the next action.
    Look,
    /// Has finished the task at the head of its list.
    Measured,
    /// Renews its lease and sends a heartbeat.
    Keep,
}

/// A request of an agent to the simulation.
#[derive(Debug)]
pub enum Wish {
    /// Send this call, and wait for the answer.
    Send(Call),
    /// Send this call, and continue.
    Post(Call),
    /// Wake up after a delay.
    Wake(Millis, Next),
    /// The agent has crashed.
    Crash,
}

/// A box.
#[derive(Debug)]
pub struct Agent {
    /// How far its clock is off.
    pub offset: Millis,
    /// Counts its starts: events for an earlier start are ignored.
    pub start: u32,
    /// Whether it runs.
    pub up: bool,
    /// On its disk: measured and not yet acknowledged.
    spool: Vec<Report>,
    /// On its disk: refused for good.
    pub refused: BTreeSet<Uuid>,
    /// The call that it waits for.
    waits: Option<(u64, Call)>,
    work: Option<Work>,
    /// The id of the requested lease, until there is an answer.
    asking: Option<Uuid>,
    /// The source of ids.
    ids: fastrand::Rng,
}

impl Agent {
    /// A box with this clock offset.
    pub fn new(offset: Millis, ids: fastrand::Rng) -> Agent {
        Agent {
            offset,
            start: 0,
            up: true,
            spool: Vec::new(),
            refused: BTreeSet::new(),
            waits: None,
            work: None,
            asking: None,
            ids,
        }
    }

    /// Whether it has nothing left to send.
    pub fn is_empty(&self) -> bool {
        self.spool.is_empty()
    }

    /// Loses everything that is not on its disk.
    pub fn crash(&mut self) {
        self.up = false;
        self.start += 1;
        self.waits = None;
        self.work = None;
        self.asking = None;
    }

    /// From now on it waits for the answer to this call.
    pub fn sent(&mut self, id: u64, call: Call) {
        self.waits = Some((id, call));
    }

    /// The next action when it waits for nothing.
    pub fn look(&mut self) -> Vec<Wish> {
        if self.waits.is_some() || self.is_measuring() {
            return Vec::new();
        }
        let call = match &self.work {
            _ if !self.spool.is_empty() => self.upload(),
            Some(work) => Call::Release(work.id),
            None => {
                let ids = &mut self.ids;
                Call::Lease(*self.asking.get_or_insert_with(|| Uuid::from_u128(ids.u128(..))))
            }
        };
        vec![Wish::Send(call)]
    }

    fn is_measuring(&self) -> bool {
        self.work.as_ref().is_some_and(|work| !work.todo.is_empty())
    }

    fn upload(&self) -> Call {
        Call::Results(self.spool.iter().take(BATCH).cloned().collect())
    }

    /// The task at the head of its list is finished.
    pub fn measured(&mut self, rng: &mut fastrand::Rng, finished_at: Timestamp) -> Vec<Wish> {
        let Some((task, key, generation)) =
            self.work.as_mut().and_then(|work| work.todo.pop_front())
        else {
            // The lease was dropped meanwhile.
            return self.look();
        };
        if key == POISON {
            return vec![Wish::Crash];
        }
        let id = Uuid::from_u128(rng.u128(..));
        let (has_number, of_box) = (rng.f64() < 0.9, rng.bool());
        self.spool.push(Report { id, task, key, generation, has_number, of_box, finished_at });
        if self.is_measuring() {
            let mut wishes = vec![Wish::Wake(rng.i64(500..8_000), Next::Measured)];
            if self.waits.is_none() {
                wishes.push(Wish::Send(self.upload()));
            }
            return wishes;
        }
        self.look()
    }

    /// The id of its last measured and unsent report.
    pub fn last_measured(&self) -> Option<Uuid> {
        self.spool.last().map(|report| report.id)
    }

    /// Sends heartbeats as long as it works on a lease.
    pub fn keep(&self) -> Vec<Wish> {
        match &self.work {
            Some(work) => vec![
                Wish::Post(Call::Renew(work.id)),
                Wish::Post(Call::Beat(work.id)),
                Wish::Wake(10_000, Next::Keep),
            ],
            None => Vec::new(),
        }
    }

    /// Handles an answer to any of its calls.
    pub fn take(
        &mut self,
        id: u64,
        call: &Call,
        answer: &Answer,
        rng: &mut fastrand::Rng,
    ) -> Vec<Wish> {
        // Answers to renewals are not waited for, and late answers are ignored.
        match (call, answer) {
            (Call::Renew(lease), Answer::Lost) | (Call::Beat(lease), Answer::Alive(false)) => {
                return self.drop_work(*lease);
            }
            (Call::Renew(_) | Call::Beat(_), _) => return Vec::new(),
            _ => {}
        }
        if self.waits.as_ref().is_none_or(|(waits, _)| *waits != id) {
            return Vec::new();
        }
        self.waits = None;
        match (call, answer) {
            (Call::Lease(_), Answer::Lease(lease)) => {
                self.asking = None;
                match lease {
                    Some(lease) if !lease.tasks.is_empty() => self.start_work(lease, rng),
                    _ => vec![Wish::Wake(5_000, Next::Look)],
                }
            }
            (Call::Lease(_), _) => vec![Wish::Wake(5_000, Next::Look)],
            (Call::Release(_), _) => {
                self.work = None;
                self.look()
            }
            (Call::Results(reports), Answer::Stored(refused)) => {
                let sent: BTreeSet<Uuid> = reports.iter().map(|report| report.id).collect();
                self.spool.retain(|report| !sent.contains(&report.id));
                self.refused.extend(refused.keys());
                self.look()
            }
            _ => vec![Wish::Wake(2_000, Next::Look)],
        }
    }

    /// Handles a time-out.
    pub fn timeout(&mut self, id: u64) -> Vec<Wish> {
        if self.waits.as_ref().is_none_or(|(waits, _)| *waits != id) {
            return Vec::new();
        }
        self.waits = None;
        vec![Wish::Wake(2_000, Next::Look)]
    }

    fn start_work(&mut self, lease: &Leased, rng: &mut fastrand::Rng) -> Vec<Wish> {
        self.work = Some(Work { id: lease.id, todo: lease.tasks.iter().copied().collect() });
        vec![
            Wish::Wake(rng.i64(500..8_000), Next::Measured),
            Wish::Wake(rng.i64(0..10_000), Next::Keep),
        ]
    }

    fn drop_work(&mut self, lease: Uuid) -> Vec<Wish> {
        match &mut self.work {
            Some(work) if work.id == lease => {
                work.todo.clear();
                self.look()
            }
            _ => Vec::new(),
        }
    }
}
