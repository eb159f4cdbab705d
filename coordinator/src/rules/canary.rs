//! The rules of canaries: a few ops that every agent measures after enrolment and then every day, compared with
//! their latencies on other agents of its class. Pure.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use latlas_predict::merge::DISAGREEMENT;
use latlas_predict::stats;
use latlas_shared::api::AgentState;

/// The built-in space that is measured.
pub const SPACE: &str = "canary";

/// How often an agent may be given the canary without completing it.
const MOST_TRIES: u32 = 3;

/// Time between two canaries of an agent that the farm itself has quarantined.
const RETRY: SignedDuration = SignedDuration::from_mins(30);

/// Fewest other agents, or earlier canaries of the same agent, to compare with. If only one differs, either of the two
/// may be wrong.
const FEWEST: usize = 2;

/// The task number of a canary. It is negative because it is not in the table of tasks.
pub fn task_number(index: usize) -> i64 {
    -1 - i64::try_from(index).unwrap_or(i64::MAX - 1)
}

/// Whether a task's number is a canary's.
pub fn is_canary(task: Option<i64>) -> bool {
    task.is_some_and(|number| number < 0)
}

/// The state of an agent's canaries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Round {
    /// Its state.
    pub state: AgentState,
    /// Whether the farm itself set the state. Only an admin reverts an admin's decision.
    pub by_farm: bool,
    /// When a canary was last handed out.
    pub asked_at: Option<Timestamp>,
    /// How often the canary was handed out since it was last completed.
    pub tries: u32,
    /// Whether a canary is handed out now.
    pub out: bool,
}

/// The next step for an agent's canary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Nothing now.
    No,
    /// It is to be handed out before other work.
    Yes,
    /// It was handed out too often without being completed.
    Lost,
}

/// Whether an agent should measure the canary now.
pub fn due(round: &Round, every: Option<SignedDuration>, now: Timestamp) -> Due {
    let every = match (round.state, every) {
        (AgentState::Active, Some(every)) => every,
        // Also if canaries are disabled: a canary is the only way out of this quarantine.
        (AgentState::Quarantined, every) if round.by_farm => every.map_or(RETRY, |e| e.min(RETRY)),
        (AgentState::Active | AgentState::Quarantined | AgentState::Draining, _) => return Due::No,
    };
    match (round.asked_at, round.tries) {
        _ if round.out => Due::No,
        (None, _) => Due::Yes,
        (Some(_), tries) if tries >= MOST_TRIES => Due::Lost,
        (Some(_), 1..) => Due::Yes,
        (Some(asked_at), 0) if now.duration_since(asked_at) >= every => Due::Yes,
        (Some(_), 0) => Due::No,
    }
}

/// Why an agent that never completed its canary is not trusted.
pub fn lost_reason() -> String {
    format!("the canary was handed out {MOST_TRIES} times and never came back whole")
}

/// Latencies of the ops of one canary, in microseconds, by key.
pub type Values = BTreeMap<String, f64>;

/// The result of comparing a canary.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// The agent agrees with the others.
    Inside,
    /// The agent deviates, for this reason.
    Outside(String),
    /// There are too few values to compare with.
    Unknown,
}

/// Compares a canary with those of other agents of the class. If there are too few, it compares with earlier canaries
/// of the same agent; those are not needed if [`is_enough`] is true for the others.
///
/// The agent has one ratio to each of the others: the median over the ops. The median of these ratios decides. So
/// neither a single disturbed op nor a minority of the others can decide.
pub fn judge(own: &Values, others: &[Values], history: &[Values]) -> Verdict {
    if own.is_empty() {
        return Verdict::Outside("no op of its canary gave a number".to_owned());
    }
    let against_others = deviation(own, others).map(|ratio| (ratio, others, "agents of its class"));
    let against_itself =
        || deviation(own, history).map(|ratio| (ratio, history, "earlier canaries of its own"));
    let Some((ratio, references, whose)) = against_others.or_else(against_itself) else {
        return Verdict::Unknown;
    };
    if ratio.max(1.0 / ratio) <= DISAGREEMENT {
        return Verdict::Inside;
    }
    Verdict::Outside(format!(
        "its canary took {ratio:.2} times what it takes in {} {whose}, and {DISAGREEMENT} times or its \
         inverse is the limit ({})",
        references.len(),
        figures(own, references)
    ))
}

/// Whether these references are enough to judge a canary.
pub fn is_enough(own: &Values, references: &[Values]) -> bool {
    deviation(own, references).is_some()
}

/// The slowdown of a canary against the references: the median over them. For an even number of references it is the
/// more favourable of the two middle values. None if there are too few.
fn deviation(own: &Values, references: &[Values]) -> Option<f64> {
    let ratio = |other: &Values| {
        let ratios: Vec<f64> =
            own.iter().filter_map(|(key, micros)| Some(micros / other.get(key)?)).collect();
        (!ratios.is_empty()).then(|| stats::median(&ratios))
    };
    let ratios: Vec<f64> = references.iter().filter_map(ratio).collect();
    if ratios.len() < FEWEST {
        return None;
    }
    let ratios = stats::sorted(&ratios);
    let (low, high) = (ratios[(ratios.len() - 1) / 2], ratios[ratios.len() / 2]);
    Some(1.0f64.clamp(low, high))
}

/// The latency of each op, and its usual latency.
fn figures(own: &Values, references: &[Values]) -> String {
    let usual = |key: &String| {
        let values: Vec<f64> = references.iter().filter_map(|r| r.get(key).copied()).collect();
        (!values.is_empty()).then(|| stats::median(&values))
    };
    let figures: Vec<String> = own
        .iter()
        .filter_map(|(key, micros)| {
            Some(format!("{key}: {micros:.1} us, usually {:.1}", usual(key)?))
        })
        .collect();
    figures.join("; ")
}

/// The new state of an agent after a complete canary, with the reason.
///
/// `lost` says that the agent was quarantined for missing numbers, and not because of a canary.
pub fn after(round: &Round, verdict: &Verdict, lost: bool) -> Option<(AgentState, String)> {
    let back = |why: &str| Some((AgentState::Active, why.to_owned()));
    match (round.state, verdict) {
        (AgentState::Active, Verdict::Outside(reason)) => {
            Some((AgentState::Quarantined, reason.clone()))
        }
        (AgentState::Quarantined, Verdict::Inside) if round.by_farm => {
            back("its canary is like the others again")
        }
        (AgentState::Quarantined, Verdict::Unknown) if round.by_farm && lost => {
            back("its canary came in, and there is nothing to hold it against")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn values(micros: &[f64]) -> Values {
        micros.iter().enumerate().map(|(n, &micros)| (format!("Op{n}"), micros)).collect()
    }

    fn round(state: AgentState) -> Round {
        Round { state, by_farm: false, asked_at: None, tries: 0, out: false }
    }

    #[test]
    fn a_slow_agent_is_outside_with_the_figures() {
        let usual = [values(&[100.0, 10.0]), values(&[104.0, 9.9]), values(&[98.0, 10.2])];
        assert_eq!(judge(&values(&[120.0, 11.0]), &usual, &[]), Verdict::Inside);
        let Verdict::Outside(reason) = judge(&values(&[200.0, 21.0]), &usual, &[]) else {
            panic!()
        };
        assert_eq!(
            reason,
            "its canary took 2.05 times what it takes in 3 agents of its class, and 1.3 times or its inverse \
             is the limit (Op0: 200.0 us, usually 100.0; Op1: 21.0 us, usually 10.0)"
        );
        // Being twice as fast as all others is just as suspicious.
        assert!(matches!(judge(&values(&[50.0, 5.0]), &usual, &[]), Verdict::Outside(_)));
        assert!(matches!(judge(&Values::new(), &usual, &[]), Verdict::Outside(_)));
    }

    #[test]
    fn one_other_agent_says_nothing_and_the_own_past_does() {
        let (own, other) = (values(&[200.0]), values(&[100.0]));
        assert_eq!(judge(&own, std::slice::from_ref(&other), &[]), Verdict::Unknown);
        let past = [values(&[100.0]), values(&[101.0])];
        assert!(matches!(judge(&own, &[other], &past), Verdict::Outside(_)));
        // If two others disagree, an agent that agrees with one of them is accepted.
        assert_eq!(judge(&own, &[values(&[100.0]), values(&[200.0])], &[]), Verdict::Inside);
    }

    #[test]
    fn a_canary_is_due_at_the_beginning_and_every_day() {
        let (day, hour) = (SignedDuration::from_hours(24), SignedDuration::from_hours(1));
        let now = Timestamp::from_second(1_000_000).unwrap();
        let ago = |time: SignedDuration| Some(now - time);
        let active = round(AgentState::Active);
        let caught = Round { by_farm: true, ..round(AgentState::Quarantined) };
        for (round, expected) in [
            (active, Due::Yes),
            (Round { out: true, ..active }, Due::No),
            (Round { asked_at: ago(hour), ..active }, Due::No),
            (Round { asked_at: ago(day), ..active }, Due::Yes),
            // The canary was given back, or its agent died.
            (Round { asked_at: ago(hour), tries: 2, ..active }, Due::Yes),
            (Round { asked_at: ago(hour), tries: 3, ..active }, Due::Lost),
            (round(AgentState::Draining), Due::No),
            (round(AgentState::Quarantined), Due::No),
            (Round { asked_at: ago(SignedDuration::from_mins(10)), ..caught }, Due::No),
            (Round { asked_at: ago(hour), ..caught }, Due::Yes),
        ] {
            assert_eq!(due(&round, Some(day), now), expected, "{round:?}");
            let expected = if round.by_farm { expected } else { Due::No };
            assert_eq!(due(&round, None, now), expected, "without canaries: {round:?}");
        }
    }

    #[test]
    fn what_an_admin_decides_no_canary_takes_back() {
        let admin = round(AgentState::Quarantined);
        let caught = Round { by_farm: true, ..admin };
        let outside = Verdict::Outside("slow".into());
        for lost in [false, true] {
            for verdict in [&Verdict::Inside, &outside, &Verdict::Unknown] {
                assert_eq!(after(&admin, verdict, lost), None);
                assert_eq!(after(&round(AgentState::Draining), verdict, lost), None);
            }
            assert!(matches!(
                after(&caught, &Verdict::Inside, lost),
                Some((AgentState::Active, _))
            ));
            assert_eq!(after(&caught, &outside, lost), None);
        }
        assert_eq!(after(&caught, &Verdict::Unknown, false), None);
        assert!(after(&caught, &Verdict::Unknown, true).is_some());
        let active = round(AgentState::Active);
        assert_eq!(
            after(&active, &outside, false),
            Some((AgentState::Quarantined, "slow".to_owned()))
        );
        assert_eq!(after(&active, &Verdict::Unknown, false), None);
    }

    #[test]
    fn numbers_of_canaries_are_no_tasks() {
        assert_eq!([0, 1].map(task_number), [-1, -2]);
        assert!(is_canary(Some(-1)) && !is_canary(Some(1)) && !is_canary(None));
    }

    fn canaries(agents: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Values>> {
        let one = prop::collection::vec(95.0f64..105.0, 4).prop_map(|micros| values(&micros));
        prop::collection::vec(one, agents)
    }

    fn outside(verdict: &Verdict) -> bool {
        matches!(verdict, Verdict::Outside(_))
    }

    proptest! {
        #[test]
        fn the_order_of_agents_and_the_unit_of_time_do_not_matter(
            own in canaries(1..2), others in canaries(2..8), unit in 1e-3f64..1e3, factor in 0.3f64..3.0,
        ) {
            let at = |unit: f64, canary: &Values| -> Values {
                canary.iter().map(|(key, micros)| (key.clone(), unit * micros)).collect()
            };
            let own = at(factor, &own[0]);
            let mut turned: Vec<Values> = others.iter().map(|other| at(unit, other)).collect();
            turned.reverse();
            let one = deviation(&own, &others).unwrap();
            let other = deviation(&at(unit, &own), &turned).unwrap();
            prop_assert!((one / other - 1.0).abs() < 1e-9);
        }

        #[test]
        fn a_minority_of_liars_casts_nobody_out_and_shields_nobody(
            own in canaries(1..2), honest in canaries(3..8), lie in prop_oneof![1e-3f64..1e-1, 1e1f64..1e3],
            liars in 0usize..4,
        ) {
            let liars = liars.min(honest.len() - 1);
            let mut others = honest.clone();
            for values in &honest[..liars] {
                others.push(values.iter().map(|(key, micros)| (key.clone(), lie * micros)).collect());
            }
            prop_assert_eq!(judge(&own[0], &others, &[]), Verdict::Inside);
            let slow: Values = own[0].iter().map(|(key, micros)| (key.clone(), 2.0 * micros)).collect();
            prop_assert!(outside(&judge(&slow, &others, &[])));
        }

        #[test]
        fn one_disturbed_op_of_four_is_not_enough(
            own in canaries(1..2), others in canaries(2..8), slow in 1.0f64..100.0,
        ) {
            let mut own = own[0].clone();
            own.insert("Op0".to_owned(), 100.0 * slow);
            prop_assert_eq!(judge(&own, &others, &[]), Verdict::Inside);
        }
    }
}
