//! The rules of leases: their number of tasks, their end, and when an agent counts as stuck.

use jiff::{SignedDuration, Timestamp};

/// The parameters of the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// The duration of a lease, unless it is renewed.
    pub lease: SignedDuration,
    /// Leases that may end without a result for a task before the task is given up.
    pub max_attempts: u32,
    /// The most tasks of one lease, whatever the agent asks for.
    pub max_tasks: u32,
    /// An agent loses its lease if its heartbeats arrive but its number of visits does not change for this long.
    pub stuck: SignedDuration,
    /// Time between two canaries of an agent; none: canaries are disabled.
    pub canary_every: Option<SignedDuration>,
}

impl Default for Policy {
    /// One minute lets an agent miss a renewal or two, and still reassigns the work of a dead agent soon. A worker
    /// whose visit takes longer than two minutes is killed, so several visits fit into ten minutes.
    fn default() -> Self {
        Policy {
            lease: SignedDuration::from_secs(60),
            max_attempts: 3,
            max_tasks: 64,
            stuck: SignedDuration::from_mins(10),
            canary_every: None,
        }
    }
}

/// The progress of a lease, as its agent reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Visits for the lease so far.
    pub visits: u64,
    /// When that number last changed.
    pub moved_at: Timestamp,
}

/// The progress of a lease after a heartbeat with this number of visits.
pub fn pace(known: Option<Pace>, visits: u64, now: Timestamp) -> Pace {
    match known {
        Some(pace) if pace.visits == visits => pace,
        _ => Pace { visits, moved_at: now },
    }
}

/// Whether a lease should be revoked although its agent is alive.
pub fn is_stuck(pace: &Pace, now: Timestamp, policy: &Policy) -> bool {
    now.duration_since(pace.moved_at) >= policy.stuck
}

/// The number of tasks from the head of the queue that form one lease, given the number of leases that each task has
/// lost so far.
///
/// A task that was in a lost lease is handed out alone: if it kills its worker again, no other task is affected.
pub fn batch(lost: &[u32], asked: u32, policy: &Policy) -> usize {
    let most = asked.min(policy.max_tasks) as usize;
    match lost.first() {
        None => 0,
        Some(0) => lost.iter().take(most).take_while(|&&n| n == 0).count(),
        Some(_) => most.min(1),
    }
}

/// The number of tasks of a lease of at most `size`, where some of the tasks at the head of the queue are sustained runs.
///
/// A sustained run takes its box for minutes, so it is handed out alone: other tasks go to other agents meanwhile.
pub fn apart(sustained: impl IntoIterator<Item = bool>, size: usize) -> usize {
    let mut head = sustained.into_iter().take(size).peekable();
    match head.peek() {
        Some(true) => 1,
        _ => head.take_while(|sustained| !sustained).count(),
    }
}

/// The end of a lease that starts or is renewed now.
pub fn deadline(now: Timestamp, policy: &Policy) -> Timestamp {
    now.saturating_add(policy.lease).unwrap_or(Timestamp::MAX)
}

/// Whether a lease is still valid. It ends at its deadline, even before the next sweep.
pub fn is_live(deadline: Timestamp, now: Timestamp) -> bool {
    now < deadline
}

/// The deadline to continue with. No lease that starts or is renewed now ends after [`deadline`]. A later deadline is
/// from before the clock was set back. Without the bound, its lease would stay until the clock has caught up, perhaps
/// for years.
pub fn bounded(old: Timestamp, now: Timestamp, policy: &Policy) -> Timestamp {
    old.min(deadline(now, policy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_with_a_past_goes_alone() {
        let policy = Policy { max_tasks: 4, ..Policy::default() };
        for (attempts, asked, expected) in [
            (&[][..], 8, 0),
            (&[0, 0, 0, 0, 0], 8, 4),
            (&[0, 0, 1, 1], 8, 2),
            (&[1, 1, 2], 8, 1),
            (&[0, 0], 0, 0),
            (&[1], 0, 0),
        ] {
            assert_eq!(batch(attempts, asked, &policy), expected, "{attempts:?} {asked}");
        }
    }

    #[test]
    fn a_sustained_run_goes_alone() {
        for (sustained, size, expected) in [
            (&[][..], 8, 0),
            (&[false, false, false], 2, 2),
            (&[false, true, false], 3, 1),
            (&[true, true, false], 3, 1),
            (&[true], 0, 0),
        ] {
            assert_eq!(apart(sustained.iter().copied(), size), expected, "{sustained:?} {size}");
        }
    }

    #[test]
    fn a_lease_ends_at_its_deadline() {
        let now = Timestamp::from_second(1000).unwrap();
        let end = deadline(now, &Policy::default());
        assert!(is_live(end, now));
        assert!(!is_live(end, end));
    }

    #[test]
    fn a_clock_that_is_set_back_makes_no_lease_longer() {
        let policy = Policy::default();
        let now = Timestamp::from_second(1_000_000).unwrap();
        let end = deadline(now, &policy);
        assert_eq!(bounded(end, now, &policy), end);
        let before = Timestamp::from_second(1000).unwrap();
        assert_eq!(bounded(end, before, &policy), deadline(before, &policy));
    }
}
