//! A coordinator that consists only of its rules: those of [`latlas_coordinator::rules::lease`], applied in memory.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use latlas_coordinator::rules::lease::{self, Policy};
use latlas_coordinator::rules::task::{self, Failure, Progress, State};
use latlas_shared::FailureKind;
use uuid::Uuid;

use super::router::TOO_LARGE;
use super::{AGENTS, Answer, Call, Coordinator, Leased, Report};
use crate::invariants::{Books, RequestEntry, TaskEntry};

struct Task {
    class: u64,
    key: usize,
    progress: Progress,
    generation: u32,
    /// Agents that have failed it through their own fault, in this generation.
    failed_by: BTreeSet<usize>,
}

struct Held {
    agent: usize,
    deadline: Timestamp,
    /// The tasks as handed out; the rules decide which of them the lease still holds.
    tasks: Vec<i64>,
}

struct Request {
    id: Uuid,
    /// The outcome of each task: none yet, or whether there is a number.
    tasks: BTreeMap<i64, Option<Result<(), String>>>,
}

/// The rules in memory. Its fields are the data that would be on disk.
#[derive(Default)]
pub struct Pure {
    tasks: Vec<Task>,
    leases: BTreeMap<Uuid, Held>,
    measurements: BTreeSet<Uuid>,
    requests: BTreeMap<u32, Request>,
    policy: Policy,
    /// Ids are numbers here, so that a run is the same every time.
    last_id: u128,
}

impl Task {
    /// Whether another agent of its class has not failed it.
    fn can_be_tried_by_others(&self, agent: usize) -> bool {
        let others =
            (0..AGENTS.len()).filter(|&other| other != agent && AGENTS[other] == self.class);
        others.into_iter().any(|other| !self.failed_by.contains(&other))
    }
}

impl Pure {
    fn new_id(&mut self) -> Uuid {
        self.last_id += 1;
        Uuid::from_u128(self.last_id)
    }

    fn task(&mut self, id: i64) -> &mut Task {
        let index = usize::try_from(id).expect("numbers of tasks are positive");
        &mut self.tasks[index]
    }

    /// Writes the new state of a task, and updates the requests.
    fn write(&mut self, id: i64, progress: Progress) {
        let outcome = match progress.state {
            State::Queued | State::Leased(_) => None,
            State::Done => Some(Ok(())),
            State::Failed => Some(Err(progress.reason.clone().unwrap_or_default())),
        };
        self.task(id).progress = progress;
        let Some(outcome) = outcome else { return };
        for known in self.requests.values_mut().filter_map(|request| request.tasks.get_mut(&id)) {
            if known.is_none() || outcome.is_ok() {
                *known = Some(outcome.clone());
            }
        }
    }

    fn lease(&mut self, agent: usize, id: Uuid, now: Timestamp) -> Option<Leased> {
        self.expire(now);
        if let Some(held) = self.leases.get(&id) {
            let left = held
                .tasks
                .iter()
                .filter(|&&task| self.tasks[task as usize].progress.state == State::Leased(id));
            let of = |&task: &i64| {
                (task, self.tasks[task as usize].key, self.tasks[task as usize].generation)
            };
            let tasks = left.map(of).collect();
            let lease = Leased { id, deadline: held.deadline, tasks };
            return (held.agent == agent).then_some(lease);
        }
        let waits = |(index, task): (usize, &Task)| {
            let waits = task.class == AGENTS[agent]
                && task.progress.state == State::Queued
                && !(task.failed_by.contains(&agent) && task.can_be_tried_by_others(agent));
            waits.then_some((task.progress.attempts, index))
        };
        let mut queue: Vec<(u32, usize)> =
            self.tasks.iter().enumerate().filter_map(waits).collect();
        queue.sort_unstable();
        let attempts: Vec<u32> = queue.iter().map(|(attempts, _)| *attempts).collect();
        let size = lease::batch(&attempts, super::router::MAX_TASKS, &self.policy);
        if size == 0 {
            return None;
        }
        let deadline = lease::deadline(now, &self.policy);
        let mut handed_out = Vec::with_capacity(size);
        for (_, index) in queue.into_iter().take(size) {
            let task = &mut self.tasks[index];
            if let Some(leased) = task.progress.clone().leased(id) {
                task.progress = leased;
            }
            handed_out.push((index as i64, task.key, task.generation));
        }
        let tasks = handed_out.iter().map(|(task, ..)| *task).collect();
        self.leases.insert(id, Held { agent, deadline, tasks });
        Some(Leased { id, deadline, tasks: handed_out })
    }

    fn expire(&mut self, now: Timestamp) {
        let mut over = Vec::new();
        for (id, held) in &mut self.leases {
            if lease::is_live(held.deadline, now) {
                held.deadline = lease::bounded(held.deadline, now, &self.policy);
            } else {
                over.push(*id);
            }
        }
        for id in over {
            let Some(held) = self.leases.remove(&id) else { continue };
            for task in held.tasks {
                let after = self.task(task).progress.clone().expired(id, "simulated", &self.policy);
                self.write(task, after);
            }
        }
    }

    fn holds(&mut self, agent: usize, id: Uuid, now: Timestamp) -> Option<&mut Held> {
        let held = self.leases.get_mut(&id)?;
        (held.agent == agent && lease::is_live(held.deadline, now)).then_some(held)
    }

    fn results(&mut self, agent: usize, reports: &[Report]) -> Answer {
        for report in reports {
            if !self.measurements.insert(report.id) {
                continue;
            }
            let task = &self.tasks[usize::try_from(report.task).expect("numbers are positive")];
            let lease = match task.progress.state {
                State::Leased(id) if self.leases.get(&id).is_some_and(|l| l.agent == agent) => {
                    Some(id)
                }
                _ => None,
            };
            if !task::answers(Some(report.generation), task.generation, lease.is_some()) {
                continue;
            }
            let (kind, reason) = match report.of_box {
                true => (FailureKind::OutOfMemory, TOO_LARGE),
                false => (FailureKind::Unsupported, "the agent has no number"),
            };
            let elsewhere = task.can_be_tried_by_others(agent);
            let failure = Failure { kind, reason, agent_name: "simulated", lease, elsewhere };
            let progress = task.progress.clone();
            let after = match report.has_number {
                true => progress.measured(),
                false => progress.failed(&failure, &self.policy),
            };
            if !report.has_number && report.of_box {
                self.task(report.task).failed_by.insert(agent);
            }
            self.write(report.task, after);
        }
        Answer::Stored(BTreeMap::new())
    }

    fn ask(&mut self, class: u64, keys: &[usize], remeasure: bool, idempotency: u32) -> Answer {
        if let Some(known) = self.requests.get(&idempotency) {
            return Answer::Asked(known.id, false);
        }
        let mut tasks = BTreeMap::new();
        for &key in keys {
            let known = self.tasks.iter().position(|task| task.class == class && task.key == key);
            let index = known.unwrap_or_else(|| {
                self.tasks.push(Task {
                    class,
                    key,
                    progress: Progress::new(),
                    generation: 0,
                    failed_by: BTreeSet::new(),
                });
                self.tasks.len() - 1
            });
            let task = &mut self.tasks[index];
            if remeasure && matches!(task.progress.state, State::Done | State::Failed) {
                task.progress = task.progress.clone().requeued();
                task.generation += 1;
                task.failed_by.clear();
            }
            let outcome = match &task.progress.state {
                State::Done => Some(Ok(())),
                State::Failed => Some(Err(task.progress.reason.clone().unwrap_or_default())),
                State::Queued | State::Leased(_) => None,
            };
            tasks.insert(index as i64, outcome);
        }
        let id = self.new_id();
        self.requests.insert(idempotency, Request { id, tasks });
        Answer::Asked(id, true)
    }
}

impl Coordinator for Pure {
    async fn call(
        &mut self,
        agent: usize,
        call: &Call,
        now: Timestamp,
        cut: Option<u32>,
    ) -> Option<Answer> {
        // Calls are atomic here: the coordinator dies before a call or after it.
        if cut.is_some_and(|cut| cut % 2 == 0) {
            return None;
        }
        let answer = match call {
            Call::Lease(id) => Answer::Lease(self.lease(agent, *id, now)),
            Call::Renew(id) => {
                let deadline = lease::deadline(now, &self.policy);
                match self.holds(agent, *id, now) {
                    Some(held) => {
                        held.deadline = deadline;
                        Answer::Renewed(deadline)
                    }
                    None => Answer::Lost,
                }
            }
            Call::Release(id) => {
                if self.holds(agent, *id, now).is_none() {
                    return cut.is_none().then_some(Answer::Lost);
                }
                let held = self.leases.remove(id)?;
                for task in held.tasks {
                    let after = self.task(task).progress.clone().released(*id);
                    self.write(task, after);
                }
                Answer::Released
            }
            Call::Beat(id) => Answer::Alive(self.holds(agent, *id, now).is_some()),
            Call::Results(reports) => self.results(agent, reports),
            Call::Ask { keys, remeasure, idempotency } => {
                self.ask(AGENTS[agent], keys, *remeasure, *idempotency)
            }
        };
        cut.is_none().then_some(answer)
    }

    async fn sweep(&mut self, now: Timestamp) {
        self.expire(now);
    }

    async fn restart(&mut self, now: Timestamp) {
        let deadline = lease::deadline(now, &self.policy);
        self.leases.values_mut().for_each(|held| held.deadline = deadline);
    }

    async fn books(&mut self) -> Books {
        let tasks = self.tasks.iter().enumerate().map(|(id, task)| TaskEntry {
            id: id as i64,
            state: match task.progress.state {
                State::Queued => "queued",
                State::Leased(_) => "leased",
                State::Done => "done",
                State::Failed => "failed",
            }
            .to_owned(),
            attempts: task.progress.attempts,
            reason: task.progress.reason.clone(),
        });
        let requests = self.requests.values().map(|request| {
            let count = |wanted: fn(&Option<Result<(), String>>) -> bool| {
                request.tasks.values().filter(|outcome| wanted(outcome)).count() as u32
            };
            RequestEntry {
                id: request.id.to_string(),
                total: count(|_| true),
                over: count(Option::is_some),
                failed: count(|outcome| matches!(outcome, Some(Err(_)))),
                failed_without_reason: count(
                    |outcome| matches!(outcome, Some(Err(reason)) if reason.is_empty()),
                ),
            }
        });
        Books {
            tasks: tasks.collect(),
            leases: self.leases.len(),
            measurements: self.measurements.iter().copied().collect(),
            requests: requests.collect(),
            derived: Vec::new(),
        }
    }

    async fn rebuilt(&mut self) -> Books {
        self.books().await
    }
}
