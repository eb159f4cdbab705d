//! A farm in one thread and no time at all: the coordinator's rules, agents as small state machines, and
//! between them a network that loses, delays, repeats and reorders. Everything follows from one seed.
//!
//! The coordinator is one of two: [`router::Real`] is the whole of it, from its routes to its SQLite
//! file; [`rules::Pure`] is its rules alone, in memory, which is fast enough for thousands of seeds.

mod agent;
mod network;
pub mod router;
pub mod rules;
mod world;

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

pub use world::{Outcome, run};

/// Agents of a simulated farm: the memory of each, which is its class.
pub const AGENTS: [u64; 3] = [8, 8, 16];

/// Keys that may be asked for. Whoever measures the last one crashes.
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

/// A measurement, as far as the protocol cares.
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
    /// Whether there is a number.
    pub has_number: bool,
    /// Where there is none, whether the box is at fault and not the op.
    pub of_box: bool,
    /// When it was finished, by the clock of its agent.
    pub finished_at: Timestamp,
}

/// What is asked of a coordinator.
#[derive(Debug, Clone)]
pub enum Call {
    /// An agent wants tasks under a lease with this id.
    Lease(Uuid),
    /// An agent keeps a lease.
    Renew(Uuid),
    /// An agent gives a lease back.
    Release(Uuid),
    /// An agent says that it lives and works on this.
    Beat(Uuid),
    /// An agent reports.
    Results(Vec<Report>),
    /// A researcher wants these keys of the class of one of the agents, under an idempotency key.
    Ask {
        /// Indexes of the keys.
        keys: Vec<usize>,
        /// Whether to measure again.
        remeasure: bool,
        /// The idempotency key.
        idempotency: u32,
    },
}

/// A lease, as far as the protocol cares.
#[derive(Debug, Clone)]
pub struct Leased {
    /// Its id.
    pub id: Uuid,
    /// Its deadline, by the coordinator's clock.
    pub deadline: Timestamp,
    /// Its tasks, each with the index of its key and its generation.
    pub tasks: Vec<(i64, usize, u32)>,
}

/// What a coordinator answers.
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
    /// To [`Call::Results`]: everything is stored but these, which are refused.
    Stored(BTreeMap<Uuid, String>),
    /// To [`Call::Ask`]: the request, and whether it is new.
    Asked(Uuid, bool),
    /// The lease is over.
    Lost,
    /// Anything else, with the status.
    Trouble(u16, String),
}

/// A coordinator as the simulation sees it.
pub trait Coordinator {
    /// Answers a call of an agent, or of a researcher who wants something of that agent's class. None when
    /// it died before it could answer, which it may be asked to do on the way (`cut`).
    fn call(
        &mut self,
        agent: usize,
        call: &Call,
        now: Timestamp,
        cut: Option<u32>,
    ) -> impl Future<Output = Option<Answer>>;

    /// Looks for leases that are over, as a running coordinator does every few seconds.
    fn sweep(&mut self, now: Timestamp) -> impl Future<Output = ()>;

    /// Dies and starts again on what it has on disk.
    fn restart(&mut self, now: Timestamp) -> impl Future<Output = ()>;

    /// What it has on disk.
    fn books(&mut self) -> impl Future<Output = crate::invariants::Books>;

    /// The same after everything that is derived was made anew.
    fn rebuilt(&mut self) -> impl Future<Output = crate::invariants::Books>;
}

/// Milliseconds of simulated time.
pub(crate) type Millis = i64;

/// The beginning of simulated time.
pub(crate) fn clock(now: Millis, offset: Millis) -> Timestamp {
    let start = Timestamp::from_second(1_800_000_000).expect("it is a valid time");
    start + SignedDuration::from_millis(now + offset)
}

/// What is checked of each call at the moment at which it is answered, which no look at the end shows.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Who holds a task, by the answers that were given: lease, agent and deadline.
    holders: BTreeMap<i64, (Uuid, usize, Timestamp)>,
    /// Tasks that were handed out since somebody asked for anything anew, with their generation.
    fresh: BTreeMap<i64, u32>,
    /// Tasks that have a number and were not asked for again.
    settled: BTreeSet<i64>,
    /// Measurements that have come in: what comes again settles nothing.
    stored: BTreeSet<Uuid>,
    pub(crate) broken: Vec<String>,
}

impl Watch {
    /// Looks at an answer.
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
            // The attempt is over, if it is this agent's.
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

    /// The coordinator's clock was set: leases are shortened where it was set back.
    pub(crate) fn clock_set(&mut self, latest: Timestamp) {
        for holder in self.holders.values_mut() {
            holder.2 = holder.2.min(latest);
        }
    }

    /// The coordinator has looked for leases that are over: they stay over, whatever its clock says later.
    pub(crate) fn swept(&mut self, now: Timestamp) {
        self.holders.retain(|_, holder| holder.2 > now);
    }

    /// A call was cut off, so what was committed is not known. What it reported may be in, and then settles
    /// nothing when it comes again.
    pub(crate) fn cut(&mut self, call: &Call) {
        self.holders.clear();
        self.settled.clear();
        if let Call::Results(reports) = call {
            self.stored.extend(reports.iter().map(|report| report.id));
        }
        self.fresh.clear();
    }
}
