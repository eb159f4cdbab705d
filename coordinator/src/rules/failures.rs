//! The rules of failing agents: when failures are evidence against an agent. Pure.

use jiff::{SignedDuration, Timestamp};

/// A failure counts against an agent for this long.
pub const WINDOW: SignedDuration = SignedDuration::from_hours(24);

/// An agent is not trusted once it has failed this many tasks that another agent of its class then measured.
const MOST_REFUTED: u32 = 3;

/// An agent is not trusted once it has failed this many tasks in a row while others returned numbers.
const MOST_IN_A_ROW: u32 = 5;

/// The failures of an agent through faults of its box, and the results of others for the same tasks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// Tasks that it failed within [`WINDOW`] and that another agent then measured. Out-of-memory failures are not
    /// among them: the box only has too little memory, and its other numbers are sound.
    pub refuted: u32,
    /// Tasks that it failed since its last successful measurement.
    pub in_a_row: u32,
    /// Other agents of its class that have sent numbers since the first of these failures.
    pub others: u32,
    /// The last task that it failed, and why.
    pub last: Option<(String, String)>,
}

/// Why an agent with this record is not trusted; none if it is trusted.
pub fn distrusted(record: &Record) -> Option<String> {
    let Record { refuted, in_a_row, others, last } = record;
    let what = if *refuted >= MOST_REFUTED {
        format!(
            "it failed {refuted} tasks within a day that other agents of its class then measured"
        )
    } else if *in_a_row >= MOST_IN_A_ROW && *others > 0 {
        format!(
            "it failed its last {in_a_row} tasks, all that it was given, while {others} other {} of its \
             class measured theirs",
            if *others == 1 { "agent" } else { "agents" }
        )
    } else {
        return None;
    };
    Some(match last {
        Some((subject, reason)) => format!("{what}; the last was {subject}: {reason}"),
        None => what,
    })
}

/// Smaller clock offsets are ignored: the delay of a message is included in them.
const CLOCK_TELLS: SignedDuration = SignedDuration::from_secs(2);

/// When a measurement was made, by the coordinator's clock: the time of the box's clock, minus the offset by which that
/// clock is `ahead`. If the result is before the enrolment or after the arrival, the clock was set in between. Then
/// only the time of arrival is known.
pub fn measured_at(
    finished_at: Timestamp,
    ahead: Option<SignedDuration>,
    enrolled_at: Timestamp,
    received_at: Timestamp,
) -> Timestamp {
    let ahead = ahead.filter(|ahead| ahead.unsigned_abs() >= CLOCK_TELLS.unsigned_abs());
    match finished_at.checked_sub(ahead.unwrap_or_default()) {
        Ok(time) if (enrolled_at..=received_at).contains(&time) => time,
        _ => received_at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(refuted: u32, in_a_row: u32, others: u32) -> Record {
        let last = Some(("Conv3x3:n1".to_owned(), "the worker process died".to_owned()));
        Record { refuted, in_a_row, others, last }
    }

    #[test]
    fn an_agent_that_fails_what_others_measure_is_not_trusted() {
        for trusted in [record(0, 0, 9), record(2, 4, 3), record(0, 64, 0), record(2, 2, 1)] {
            assert_eq!(distrusted(&trusted), None, "{trusted:?}");
        }
        assert_eq!(
            distrusted(&record(3, 0, 0)).unwrap(),
            "it failed 3 tasks within a day that other agents of its class then measured; the last was \
             Conv3x3:n1: the worker process died"
        );
        assert_eq!(
            distrusted(&record(1, 8, 1)).unwrap(),
            "it failed its last 8 tasks, all that it was given, while 1 other agent of its class measured \
             theirs; the last was Conv3x3:n1: the worker process died"
        );
    }

    #[test]
    fn a_wrong_clock_dates_nothing() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let hours = SignedDuration::from_hours;
        let (enrolled, received) = (at(1_700_000_000), at(1_700_009_000));
        let measured = at(1_700_008_000);
        for (box_clock, ahead, expected) in [
            (measured, None, measured),
            (measured, Some(hours(0)), measured),
            (measured, Some(SignedDuration::from_millis(-90)), measured),
            (measured + hours(8), Some(hours(8)), measured),
            (measured - hours(20), Some(hours(-20)), measured),
            // The box's clock was corrected before it could send, or the box has never reported its clock.
            (measured + hours(8), None, received),
            (at(86_400), Some(hours(0)), received),
            (Timestamp::MAX, None, received),
            (Timestamp::MAX, Some(SignedDuration::MIN), received),
            (Timestamp::MIN, Some(SignedDuration::MAX), received),
        ] {
            assert_eq!(
                measured_at(box_clock, ahead, enrolled, received),
                expected,
                "{box_clock} {ahead:?}"
            );
        }
        let epoch = at(1_700_008_000).duration_since(Timestamp::UNIX_EPOCH);
        assert_eq!(measured_at(Timestamp::UNIX_EPOCH, Some(-epoch), enrolled, received), measured);
    }
}
