//! A farm in one thread with simulated time: the coordinator's rules, agents as small state machines, and a network
//! between them that loses, delays, repeats and reorders messages. Everything follows from one seed.
//!
//! There are two coordinators: [`router::Real`] is the complete one, from its routes to its SQLite file;
//! [`rules::Pure`] has only its rules, in memory, which is fast enough for thousands of seeds.

mod agent;
mod network;
pub mod router;
pub mod rules;
mod world;

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

pub use world::{Outcome, run};

/// Agents of a simulated farm: the memory of each, which determines its class.
pub const AGENTS: [u64; 3] = [8, 8, 16];

/// Keys that may be requested. The last one crashes the agent that measures it.
pub const KEYS: [&str; 8] = [
    "Conv3x3:n1-h8-w8-i4-o4-s1",
    "Conv3x3:n1-h8-w8-i4-o8-s2",
    "Conv3x3:n1-h8-w8-i8-o8-s1",
    "Conv1x1:n1-h8-w8-i4-o4-s1",
    "Conv1x1:n1-h8-w8-i8-o8-s1",
    "Conv1x1:n1-h4-w4-i8-o8-s1",
    "Conv5x5:n1-h8-w8-i4-o4-s1",
    "Conv5x5:n1-h8-w8-i4-o4-s2",
];

/// Index of the key that crashes its agent.
pub const POISON: usize = KEYS.len() - 1;

/// The part of a measurement that the protocol uses.
#[derive(Debug, Clone)]
pub struct Report {
    /// Its id.
    pub id: Uuid,
    /// The task that it answers.
    pub task: i64,
    /// Index of its key.
    pub key: usize,
    /// The generation of that task, as it was handed out.
    pub generation: u32,
    /// Whether it has a number.
    pub has_number: bool,
    /// Without a number: whether the box is at fault, not the op.
    pub of_box: bool,
    /// When it was finished, by the clock of its agent.
    pub finished_at: Timestamp,
}

/// A call to a coordinator.
#[derive(Debug, Clone)]
pub enum Call {
    /// An agent requests tasks under a lease with this id.
    Lease(Uuid),
    /// An agent renews a lease.
    Renew(Uuid),
    /// An agent releases a lease.
    Release(Uuid),
    /// An agent sends a heartbeat with this lease.
    Beat(Uuid),
    /// An agent sends reports.
    Results(Vec<Report>),
    /// A researcher requests these keys of the class of one of the agents, with an idempotency key.
    Ask {
        /// Indexes of the keys.
        keys: Vec<usize>,
        /// Whether to measure again.
        remeasure: bool,
        /// The idempotency key.
        idempotency: u32,
    },
}

/// The part of a lease that the protocol uses.
#[derive(Debug, Clone)]
pub struct Leased {
    /// Its id.
    pub id: Uuid,
    /// Its deadline, by the coordinator's clock.
    pub deadline: Timestamp,
    /// Its tasks, each with the index of its key and its generation.
    pub tasks: Vec<(i64, usize, u32)>,
}

/// An answer of a coordinator.
#[derive(Debug, Clone)]
pub enum Answer {
    /// To [`Call::Lease`].
    Lease(Option<Leased>),
    /// To [`Call::Renew`]: its new deadline.
    Renewed(Timestamp),
    /// To [`Call::Release`].
    Released,
    /// To [`Call::Beat`]: whether the lease is still the agent's.
    Alive(bool),
    /// To [`Call::Results`]: all reports are stored except these, which are refused.
    Stored(BTreeMap<Uuid, String>),
    /// To [`Call::Ask`]: the request, and whether it is new.
    Asked(Uuid, bool),
    /// The lease has ended.
    Lost,
    /// Any other answer, with its status.
    Trouble(u16, String),
}

/// The interface of a coordinator in the simulation.
pub trait Coordinator {
    /// Answers a call of an agent, or of a researcher who requests keys of that agent's class. None if it died before
    /// it could answer; `cut` can make it die during the call.
    fn call(
        &mut self,
        agent: usize,
        call: &Call,
        now: Timestamp,
        cut: Option<u32>,
    ) -> impl Future<Output = Option<Answer>>;

    /// Ends expired leases, as a running coordinator does every few seconds.
    fn sweep(&mut self, now: Timestamp) -> impl Future<Output = ()>;

    /// Dies and restarts with its data on disk.
    fn restart(&mut self, now: Timestamp) -> impl Future<Output = ()>;

    /// Its data on disk.
    fn books(&mut self) -> impl Future<Output = crate::invariants::Books>;

    /// The same after a rebuild of all derived data.
    fn rebuilt(&mut self) -> impl Future<Output = crate::invariants::Books>;
}

/// Milliseconds of simulated time.
pub(crate) type Millis = i64;

/// The beginning of simulated time.
pub(crate) fn clock(now: Millis, offset: Millis) -> Timestamp {
    let start = Timestamp::from_second(1_800_000_000).expect("it is a valid time");
    start + SignedDuration::from_millis(now + offset)
}

/// Checks of each call at the moment of its answer, which a check at the end cannot replace.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// The holder of each task, by the given answers: lease, agent and deadline.
    holders: BTreeMap<i64, (Uuid, usize, Timestamp)>,
    /// Tasks that were handed out since the last new request, with their generation.
    fresh: BTreeMap<i64, u32>,
    /// Tasks that have a number and were not requested again.
    settled: BTreeSet<i64>,
    /// Measurements that have arrived: a repetition settles nothing.
    stored: BTreeSet<Uuid>,
    pub(crate) broken: Vec<String>,
}

impl Watch {
    /// Checks an answer.
    pub(crate) fn answered(&mut self, agent: usize, call: &Call, answer: &Answer, now: Timestamp) {
        if matches!(call, Call::Lease(_)) {
            self.swept(now);
        }
        match (call, answer) {
            (Call::Lease(_), Answer::Lease(Some(lease))) => self.handed_out(agent, lease, now),
            (Call::Renew(id), Answer::Renewed(deadline)) => {
                for holder in self.holders.values_mut().filter(|holder| holder.0 == *id) {
                    holder.2 = *deadline;
                }
            }
            (Call::Release(id), Answer::Released) => {
                self.holders.retain(|_, holder| holder.0 != *id);
            }
            (Call::Results(reports), Answer::Stored(refused)) => {
                reports.iter().for_each(|report| self.reported(agent, report, refused));
            }
            (Call::Ask { remeasure: true, .. }, Answer::Asked(_, true)) => {
                self.settled.clear();
                self.fresh.clear();
            }
            (_, Answer::Trouble(status, text)) => {
                self.broken.push(format!("answers: {call:?} was answered {status}: {text}"));
            }
            _ => {}
        }
    }

    fn reported(&mut self, agent: usize, report: &Report, refused: &BTreeMap<Uuid, String>) {
        if refused.contains_key(&report.id) {
            // The attempt has ended, if it is this agent's.
            if self.holders.get(&report.task).is_some_and(|holder| holder.1 == agent) {
                self.holders.remove(&report.task);
            }
        } else if self.stored.insert(report.id) {
            self.holders.remove(&report.task);
            if report.has_number && self.fresh.get(&report.task) == Some(&report.generation) {
                self.settled.insert(report.task);
            }
        }
    }

    fn handed_out(&mut self, agent: usize, lease: &Leased, now: Timestamp) {
        for &(task, _, generation) in &lease.tasks {
            self.fresh.insert(task, generation);
            if self.settled.contains(&task) {
                self.broken.push(format!("again: task {task} has a number and is handed out"));
            }
            let before = self.holders.insert(task, (lease.id, agent, lease.deadline));
            if let Some((other, _, deadline)) = before.filter(|before| before.0 != lease.id) {
                self.broken.push(format!(
                    "exclusive: task {task} is handed out at {now} under {} while {other} holds it until \
                     {deadline}",
                    lease.id
                ));
            }
        }
    }

    /// The coordinator's clock was set: leases are shortened if it was set back.
    pub(crate) fn clock_set(&mut self, latest: Timestamp) {
        for holder in self.holders.values_mut() {
            holder.2 = holder.2.min(latest);
        }
    }

    /// The coordinator has ended expired leases: they stay ended, whatever its clock shows later.
    pub(crate) fn swept(&mut self, now: Timestamp) {
        self.holders.retain(|_, holder| holder.2 > now);
    }

    /// A call was interrupted, so it is unknown what was committed. Its reports may be stored, and settle nothing if
    /// they arrive again.
    pub(crate) fn cut(&mut self, call: &Call) {
        self.holders.clear();
        self.settled.clear();
        if let Call::Results(reports) = call {
            self.stored.extend(reports.iter().map(|report| report.id));
        }
        self.fresh.clear();
    }
}
