//! The rules of tasks. All functions are pure: the store reads, calls them, and writes the result.
//!
//! A lease decides who works. It does not decide whether a result counts: a result is a fact, and settles its task
//! whoever holds the lease at that time.

use jiff::SignedDuration;
use latlas_shared::FailureKind;
use uuid::Uuid;

use crate::rules::lease::Policy;

/// The state of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Waiting for an agent.
    Queued,
    /// An agent works on it under this lease.
    Leased(Uuid),
    /// There is a measurement.
    Done,
    /// The task was given up, with a reason.
    Failed,
}

/// The part of a task that the rules use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Its state.
    pub state: State,
    /// Leases that ended without a result for it, since it was last requested.
    pub attempts: u32,
    /// Why the last attempt failed. Always present for a failed task.
    pub reason: Option<String>,
}

impl Progress {
    /// A newly requested task.
    pub fn new() -> Progress {
        Progress { state: State::Queued, attempts: 0, reason: None }
    }

    /// The task under a lease; none if it is not queued.
    pub fn leased(self, lease: Uuid) -> Option<Progress> {
        (self.state == State::Queued).then_some(Progress { state: State::Leased(lease), ..self })
    }

    /// The lease expired: the attempt failed.
    ///
    /// Without effect if the task is no longer under this lease.
    pub fn expired(self, lease: Uuid, agent_name: &str, policy: &Policy) -> Progress {
        let reason =
            format!("agent {agent_name} neither reported a result nor renewed its lease in time");
        self.attempted(lease, &reason, policy)
    }

    /// The agent was alive, but its work made no progress for this long: the attempt failed.
    ///
    /// Without effect if the task is no longer under this lease.
    pub fn stuck(
        self,
        lease: Uuid,
        agent_name: &str,
        stood_still: SignedDuration,
        policy: &Policy,
    ) -> Progress {
        let minutes = stood_still.as_mins();
        let reason =
            format!("agent {agent_name} was alive and made no visit for {minutes} minutes");
        self.attempted(lease, &reason, policy)
    }

    /// The result under the lease was refused: the attempt failed. It is counted because an agent whose results are
    /// always refused would otherwise measure the same task for ever.
    ///
    /// Without effect if the task is no longer under this lease.
    pub fn refused(self, lease: Uuid, agent_name: &str, why: &str, policy: &Policy) -> Progress {
        let reason = format!("the result of agent {agent_name} was refused: {why}");
        self.attempted(lease, &reason, policy)
    }

    /// Queued again with the attempt counted, or given up at the limit.
    fn attempted(self, lease: Uuid, reason: &str, policy: &Policy) -> Progress {
        if self.state != State::Leased(lease) {
            return self;
        }
        self.tried(reason, policy)
    }

    /// The same for any agent.
    fn tried(self, reason: &str, policy: &Policy) -> Progress {
        let attempts = self.attempts + 1;
        let reason = format!("{reason} (attempt {attempts} of {})", policy.max_attempts);
        let state = if attempts >= policy.max_attempts { State::Failed } else { State::Queued };
        Progress { state, attempts, reason: Some(reason) }
    }

    /// The agent gave it back: queued again, and no attempt is counted.
    ///
    /// Without effect if the task is no longer under this lease.
    pub fn released(self, lease: Uuid) -> Progress {
        if self.state == State::Leased(lease) {
            return Progress { state: State::Queued, ..self };
        }
        self
    }

    /// A number arrived, from any agent and at any time. It settles the task for good.
    pub fn measured(self) -> Progress {
        Progress { state: State::Done, reason: None, ..self }
    }

    /// The agent reported that there is no number.
    ///
    /// If the op is at fault, the task is not retried: it would fail on every box. If the box is at fault, another
    /// agent of the class tries the task, as long as there is one and attempts are left. A late report of an agent
    /// whose lease has ended counts no attempt, since the end of the lease counted one. A number is never undone.
    pub fn failed(self, failure: &Failure, policy: &Policy) -> Progress {
        let Failure { kind, reason, agent_name, lease, elsewhere } = *failure;
        match (self.state, lease) {
            (State::Done, _) => self,
            _ if !kind.is_of_box() => {
                Progress { state: State::Failed, reason: Some(reason.to_owned()), ..self }
            }
            (State::Leased(own), lease) if lease != Some(own) => self,
            (State::Queued, _) if self.attempts > 0 => self,
            (State::Leased(_) | State::Queued, _) if elsewhere => {
                self.tried(&format!("on agent {agent_name}: {reason}"), policy)
            }
            (State::Leased(_) | State::Queued, _) => {
                let reason = format!(
                    "on agent {agent_name}, and no other agent of its class can try it: {reason}"
                );
                let attempts = self.attempts + 1;
                Progress { state: State::Failed, attempts, reason: Some(reason) }
            }
            (State::Failed, _) => self,
        }
    }

    /// The content of the task can't be read, so it can't be handed out.
    pub fn unreadable(self, why: &str) -> Progress {
        let reason = format!("it can't be handed out: {why}");
        Progress { state: State::Failed, reason: Some(reason), ..self }
    }

    /// A request asks for it again: a finished task is queued anew, an unfinished one continues.
    pub fn requeued(self) -> Progress {
        match self.state {
            State::Done | State::Failed => Progress::new(),
            State::Queued | State::Leased(_) => self,
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Progress::new()
    }
}

/// A measurement without a number.
#[derive(Debug, Clone, Copy)]
pub struct Failure<'a> {
    /// The kind, which determines whose fault it is.
    pub kind: FailureKind,
    /// The reason as text.
    pub reason: &'a str,
    /// The agent.
    pub agent_name: &'a str,
    /// The lease under which the agent holds the task; none when it does not.
    pub lease: Option<Uuid>,
    /// Whether another agent could try it: an agent that is alive and has not failed the task.
    pub elsewhere: bool,
}

/// Whether a measurement belongs to work that was handed out since its task was last requested. An earlier measurement
/// does not answer the task.
///
/// `said` is the generation in the measurement. Without one, the generation is known only if the agent `holds` the
/// task: a lease begins after its task was requested.
pub fn answers(said: Option<u32>, generation: u32, holds: bool) -> bool {
    match said {
        // A coordinator that was restored from a backup may have an older generation.
        Some(said) => said >= generation,
        None => holds || generation == 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::lease::{Pace, batch, is_stuck, pace};
    use jiff::Timestamp;
    use proptest::prelude::*;

    fn lease(n: u128) -> Uuid {
        Uuid::from_u128(n)
    }

    #[test]
    fn a_task_is_given_up_at_the_cap_with_the_reason() {
        let policy = Policy::default();
        let mut task = Progress::new();
        for n in 0..3 {
            task = task.leased(lease(n)).unwrap().expired(lease(n), "box", &policy);
        }
        assert_eq!(task.state, State::Failed);
        assert_eq!(
            task.reason.unwrap(),
            "agent box neither reported a result nor renewed its lease in time (attempt 3 of 3)"
        );
    }

    #[test]
    fn work_that_stands_still_is_taken_away_with_the_reason() {
        let policy = Policy::default();
        let at = |minute: i64| Timestamp::from_second(1000 + 60 * minute).unwrap();
        let mut known = None;
        for (minute, visits) in [(0, 5), (4, 6), (8, 6), (13, 6)] {
            known = Some(pace(known, visits, at(minute)));
            assert!(!is_stuck(&known.unwrap(), at(minute), &policy));
        }
        assert_eq!(known, Some(Pace { visits: 6, moved_at: at(4) }));
        assert!(is_stuck(&known.unwrap(), at(14), &policy));
        let moved = pace(known, 7, at(14));
        assert!(!is_stuck(&moved, at(14), &policy));
        let task = Progress::new().leased(lease(1)).unwrap();
        let task = task.stuck(lease(1), "box", policy.stuck, &policy);
        assert_eq!((task.state, task.attempts), (State::Queued, 1));
        assert_eq!(
            task.reason.unwrap(),
            "agent box was alive and made no visit for 10 minutes (attempt 1 of 3)"
        );
    }

    #[test]
    fn giving_back_counts_no_attempt() {
        let task = Progress::new().leased(lease(1)).unwrap().released(lease(1));
        assert_eq!(task, Progress::new());
    }

    #[test]
    fn a_late_result_settles_a_task_that_was_given_up() {
        let given_up = Progress { state: State::Failed, attempts: 3, reason: Some("gone".into()) };
        assert_eq!(given_up.measured().state, State::Done);
    }

    fn failure(kind: FailureKind, held: Option<u128>, elsewhere: bool) -> Failure<'static> {
        Failure { kind, reason: "why", agent_name: "a", lease: held.map(lease), elsewhere }
    }

    #[test]
    fn a_failure_of_the_op_is_final_but_undoes_no_number() {
        let policy = Policy::default();
        for held in [None, Some(1)] {
            let failure = failure(FailureKind::NotFinite, held, true);
            let task = Progress::new().leased(lease(1)).unwrap().failed(&failure, &policy);
            assert_eq!((task.state, task.reason.as_deref()), (State::Failed, Some("why")));
            let done = Progress::new().measured();
            assert_eq!(done.clone().failed(&failure, &policy), done);
        }
    }

    #[test]
    fn a_failure_of_the_box_leaves_the_task_for_another_agent() {
        let policy = Policy::default();
        let died = |held, elsewhere| failure(FailureKind::WorkerDied, held, elsewhere);
        let mut task = Progress::new();
        for attempt in 1..=3 {
            task = task.leased(lease(attempt)).unwrap();
            // A report of an agent that does not hold the task, or no longer holds it, has no effect.
            if attempt > 1 {
                let waits = Progress { state: State::Queued, ..task.clone() };
                assert_eq!(waits.clone().failed(&died(None, true), &policy), waits);
            }
            assert_eq!(task.clone().failed(&died(None, true), &policy), task);
            assert_eq!(task.clone().failed(&died(Some(9), true), &policy), task);
            task = task.failed(&died(Some(attempt), true), &policy);
            let reason = format!("on agent a: why (attempt {attempt} of 3)");
            assert_eq!(task.reason.as_deref(), Some(reason.as_str()));
            let state = if attempt == 3 { State::Failed } else { State::Queued };
            assert_eq!((task.state, u128::from(task.attempts)), (state, attempt));
        }
        // If there is no other agent, the reason names the agent.
        let alone =
            Progress::new().leased(lease(1)).unwrap().failed(&died(Some(1), false), &policy);
        assert_eq!(
            (alone.state, alone.reason.as_deref()),
            (State::Failed, Some("on agent a, and no other agent of its class can try it: why"))
        );
    }

    #[test]
    fn what_was_handed_out_before_answers_nothing() {
        for (said, generation, holds, expected) in [
            (None, 0, false, true),
            (None, 1, false, false),
            (None, 1, true, true),
            (Some(0), 0, false, true),
            (Some(0), 1, true, false),
            (Some(1), 1, false, true),
            (Some(2), 1, false, true),
        ] {
            assert_eq!(answers(said, generation, holds), expected, "{said:?} {generation} {holds}");
        }
    }

    #[derive(Debug, Clone)]
    enum Event {
        Lease(u128),
        Expire(u128),
        Refuse(u128),
        Stuck(u128),
        Release(u128),
        Measure,
        Fail(FailureKind, Option<u128>, bool),
        Requeue,
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![
            (0u128..3).prop_map(Event::Lease),
            (0u128..3).prop_map(Event::Expire),
            (0u128..3).prop_map(Event::Refuse),
            (0u128..3).prop_map(Event::Stuck),
            (0u128..3).prop_map(Event::Release),
            Just(Event::Measure),
            (
                prop_oneof![Just(FailureKind::Unsupported), Just(FailureKind::TimedOut)],
                prop::option::of(0u128..3),
                any::<bool>()
            )
                .prop_map(|(kind, held, elsewhere)| Event::Fail(kind, held, elsewhere)),
            Just(Event::Requeue),
        ];
        prop::collection::vec(event, 0..60)
    }

    proptest! {
        #[test]
        fn whatever_happens_a_task_stays_sound(events in events(), max_attempts in 1u32..5) {
            let policy = Policy { max_attempts, ..Policy::default() };
            let mut task = Progress::new();
            for event in events {
                let before = task.clone();
                task = match event {
                    Event::Lease(n) => task.clone().leased(lease(n)).unwrap_or(task),
                    Event::Expire(n) => task.expired(lease(n), "a", &policy),
                    Event::Refuse(n) => task.refused(lease(n), "a", "it is odd", &policy),
                    Event::Stuck(n) => task.stuck(lease(n), "a", policy.stuck, &policy),
                    Event::Release(n) => task.released(lease(n)),
                    Event::Measure => task.measured(),
                    Event::Fail(kind, held, elsewhere) => {
                        task.failed(&failure(kind, held, elsewhere), &policy)
                    }
                    Event::Requeue => task.requeued(),
                };
                // No task is retried for ever, and none fails without a reason.
                prop_assert!(task.attempts <= max_attempts);
                prop_assert!(task.state != State::Queued || task.attempts < max_attempts);
                prop_assert!(task.state != State::Failed || task.reason.is_some());
                // A lease other than the task's own has no effect on it.
                let of_lease = match &event {
                    Event::Expire(n) | Event::Refuse(n) | Event::Stuck(n) | Event::Release(n) => Some(lease(*n)),
                    Event::Fail(kind, held, _) if kind.is_of_box() => Some(lease(held.unwrap_or(9))),
                    Event::Lease(_) | Event::Measure | Event::Fail(..) | Event::Requeue => None,
                };
                if let (Some(of), State::Leased(own)) = (of_lease, before.state)
                    && of != own
                {
                    prop_assert_eq!(&task, &before);
                }
                // A task keeps its number until it is requested again.
                if before.state == State::Done && !matches!(event, Event::Requeue) {
                    prop_assert_eq!(task.state, State::Done);
                }
            }
        }

        #[test]
        fn a_batch_never_exceeds_what_was_asked(
            attempts in prop::collection::vec(0u32..3, 0..20), asked in 0u32..30,
        ) {
            let policy = Policy::default();
            let size = batch(&attempts, asked, &policy);
            prop_assert!(size <= asked as usize && size <= attempts.len());
            prop_assert!(asked == 0 || attempts.is_empty() || size > 0, "work is never withheld");
        }
    }
}
