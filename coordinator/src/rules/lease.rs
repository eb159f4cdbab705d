//! The rules of leases: how many tasks one has, when it ends, and when its agent stands still.

use jiff::{SignedDuration, Timestamp};

/// The numbers that the rules use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// How long a lease lasts unless it is renewed.
    pub lease: SignedDuration,
    /// Leases that may end on a task without a result before it is given up.
    pub max_attempts: u32,
    /// The most tasks of one lease, whatever an agent asks for.
    pub max_tasks: u32,
    /// An agent whose heartbeats come while the number of its visits stays what it is for this long loses
    /// its lease.
    pub stuck: SignedDuration,
    /// Time from one canary of an agent to the next; none: there are no canaries.
    pub canary_every: Option<SignedDuration>,
}

impl Default for Policy {
    /// A minute lets an agent miss a renewal or two, and gives the work of a dead agent away soon. A visit
    /// that takes longer than two minutes ends with its worker, so ten minutes hold several of them.
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

/// How a lease gets on, by its agent's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Visits that were made for it.
    pub visits: u64,
    /// When that number last changed.
    pub moved_at: Timestamp,
}

/// How a lease gets on after a heartbeat that says this number of visits.
pub fn pace(known: Option<Pace>, visits: u64, now: Timestamp) -> Pace {
    match known {
        Some(pace) if pace.visits == visits => pace,
        _ => Pace { visits, moved_at: now },
    }
}

/// Whether a lease is to be taken away although its agent lives.
pub fn is_stuck(pace: &Pace, now: Timestamp, policy: &Policy) -> bool {
    now.duration_since(pace.moved_at) >= policy.stuck
}

/// How many tasks from the head of the queue make up one lease, given the leases that each has cost so far.
///
/// A task that cost an agent its lease before goes alone: if it kills whoever runs it, it takes no
/// other task down with it.
pub fn batch(lost: &[u32], asked: u32, policy: &Policy) -> usize {
    let most = asked.min(policy.max_tasks) as usize;
    match lost.first() {
        None => 0,
        Some(0) => lost.iter().take(most).take_while(|&&n| n == 0).count(),
        Some(_) => most.min(1),
    }
}

/// When a lease that starts or is renewed now ends.
pub fn deadline(now: Timestamp, policy: &Policy) -> Timestamp {
    now.saturating_add(policy.lease).unwrap_or(Timestamp::MAX)
}

/// Whether a lease still holds. It ends at its deadline, swept or not.
pub fn is_live(deadline: Timestamp, now: Timestamp) -> bool {
    now < deadline
}

/// The deadline to go on with: no lease that starts or is renewed now ends later than [`deadline`], so one
/// that does is from before the clock was set back, and would otherwise be held until the clock has caught
/// up, which may be years.
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
