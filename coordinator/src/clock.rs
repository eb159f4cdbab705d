//! The coordinator's time. It starts at the system's calendar time and advances with the system's monotonic clock. It
//! follows the calendar only on request, so setting the calendar ends no lease.

use std::sync::{PoisonError, RwLock};
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};

/// A larger offset means that the calendar was set; a smaller one is drift.
const JUMP: SignedDuration = SignedDuration::from_secs(2);

/// A clock that does not jump.
#[derive(Debug)]
pub struct Clock {
    anchor: RwLock<(Instant, Timestamp)>,
}

impl Clock {
    /// A clock that shows `calendar` at `now`.
    pub fn new(now: Instant, calendar: Timestamp) -> Clock {
        Clock { anchor: RwLock::new((now, calendar)) }
    }

    /// The clock's time at an instant.
    pub fn at(&self, now: Instant) -> Timestamp {
        let (instant, time) = *self.anchor.read().unwrap_or_else(PoisonError::into_inner);
        let passed = SignedDuration::try_from(now.saturating_duration_since(instant));
        time.saturating_add(passed.unwrap_or(SignedDuration::MAX)).unwrap_or(Timestamp::MAX)
    }

    /// How far the calendar has jumped since the clock last followed it, forwards or backwards; none if it has only
    /// drifted.
    pub fn jump(&self, now: Instant, calendar: Timestamp) -> Option<SignedDuration> {
        let ahead = calendar.duration_since(self.at(now));
        (ahead.abs() > JUMP).then_some(ahead)
    }

    /// Makes the clock show `calendar` from `now` on.
    pub fn follow(&self, now: Instant, calendar: Timestamp) {
        *self.anchor.write().unwrap_or_else(PoisonError::into_inner) = (now, calendar);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn it_goes_on_while_the_calendar_jumps() {
        let start = Instant::now();
        let calendar = Timestamp::from_second(1_000_000).unwrap();
        let clock = Clock::new(start, calendar);
        let later = start + Duration::from_secs(5);
        let expected = calendar + SignedDuration::from_secs(5);
        assert_eq!(clock.at(later), expected);
        assert_eq!(clock.jump(later, expected + SignedDuration::from_secs(1)), None, "a drift");
        for jump in [SignedDuration::from_hours(9), SignedDuration::from_hours(-9)] {
            assert_eq!(clock.jump(later, expected + jump), Some(jump));
            assert_eq!(clock.at(later), expected, "looking changes nothing");
        }
        let set = expected + SignedDuration::from_hours(-9);
        clock.follow(later, set);
        assert_eq!(clock.at(later), set);
        assert_eq!(clock.at(start), set, "an instant from before is no time travel");
        assert_eq!(clock.jump(later, set), None);
    }
}
