//! The state of an agent at one moment, and whether a request is unattended: pure functions of stored and live facts.

use jiff::Timestamp;
use latlas_shared::api::{AbsentBox, AgentPresence, AgentState, BoxState, Standing, Unattended};
use uuid::Uuid;

use crate::rules::presence::SILENT_AFTER;

/// The most agents that an unattended request lists.
const MOST_ABSENT: usize = 20;

/// Facts about an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The decided state of the agent.
    pub decided: AgentState,
    /// The reason of the decision, its time and its author.
    pub reason: Option<String>,
    /// See `reason`.
    pub since: Option<Timestamp>,
    /// See `reason`.
    pub by: Option<String>,
    /// When the agent was last heard of.
    pub seen_at: Timestamp,
    /// When the agent last announced its stop, and why.
    pub stopped: Option<(Timestamp, String)>,
    /// Why its box is not fit for work, by the agent's report, and since when.
    pub unfit: Option<(String, Timestamp)>,
}

impl Facts {
    /// Whether the agent runs. `awake_since` is when this coordinator began to receive calls: no agent could be heard
    /// before.
    pub fn presence(&self, awake_since: Option<Timestamp>, now: Timestamp) -> AgentPresence {
        if self.stopped.as_ref().is_some_and(|(at, _)| *at >= self.seen_at) {
            return AgentPresence::Stopped;
        }
        let heard = awake_since.map_or(self.seen_at, |awake| awake.max(self.seen_at));
        match now.duration_since(heard) < SILENT_AFTER {
            true => AgentPresence::Present,
            false => AgentPresence::Silent,
        }
    }

    /// The state of the agent: a decision comes first, then whether the agent runs, then its own report.
    pub fn standing(self, presence: AgentPresence) -> Standing {
        let decided = |state| Standing {
            state,
            reason: self.reason.clone(),
            since: self.since,
            by: self.by.clone(),
        };
        let undecided =
            |state, reason, since| Standing { state, reason: Some(reason), since, by: None };
        match (self.decided, presence, self.stopped, self.unfit) {
            (AgentState::Quarantined, ..) => decided(BoxState::Quarantined),
            (AgentState::Draining, ..) => decided(BoxState::Draining),
            (AgentState::Active, AgentPresence::Stopped, Some((at, why)), _) => {
                undecided(BoxState::Stopped, why, Some(at))
            }
            (AgentState::Active, AgentPresence::Silent, ..) => {
                let why = "no heartbeat: its agent, its power or its network is down".to_owned();
                undecided(BoxState::Silent, why, Some(self.seen_at))
            }
            (AgentState::Active, _, _, Some((why, since))) => {
                undecided(BoxState::Unfit, why, Some(since))
            }
            (AgentState::Active, ..) => decided(BoxState::Active),
        }
    }
}

/// An agent at one moment.
#[derive(Debug, Clone)]
pub struct AgentNow {
    /// The id of its table.
    pub table: i64,
    /// Its identity.
    pub agent_id: Uuid,
    /// Its name.
    pub name: String,
    /// Its class.
    pub hardware_id: String,
    /// Id of its run config.
    pub config: String,
    /// When it was last heard of.
    pub seen_at: Timestamp,
    /// Its state.
    pub standing: Standing,
    /// Whether the agent runs.
    pub presence: AgentPresence,
    /// Since when its heartbeats arrive without progress of its work, once that is too long.
    pub hangs_since: Option<Timestamp>,
}

#[cfg(test)]
impl AgentNow {
    /// An agent without a database.
    pub fn for_tests(
        name: &str,
        hardware: &str,
        standing: Standing,
        presence: AgentPresence,
    ) -> AgentNow {
        AgentNow {
            table: 1,
            agent_id: Uuid::nil(),
            name: name.to_owned(),
            hardware_id: hardware.to_owned(),
            config: "c".to_owned(),
            seen_at: Timestamp::UNIX_EPOCH,
            standing,
            presence,
            hangs_since: None,
        }
    }
}

/// The agents of a class and run config as a request lists them if none of them takes its tasks; none if one does.
pub fn unattended(agents: Vec<AbsentBox>) -> Option<Unattended> {
    if agents.iter().any(|one| one.standing.state == BoxState::Active) {
        return None;
    }
    let more = u32::try_from(agents.len().saturating_sub(MOST_ABSENT)).unwrap_or(u32::MAX);
    Some(Unattended { boxes: agents.into_iter().take(MOST_ABSENT).collect(), more })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn seen(second: i64) -> Facts {
        Facts {
            decided: AgentState::Active,
            reason: None,
            since: None,
            by: None,
            seen_at: at(second),
            stopped: None,
            unfit: None,
        }
    }

    fn state(facts: Facts, now: i64) -> BoxState {
        let presence = facts.presence(None, at(now));
        facts.standing(presence).state
    }

    #[test]
    fn an_agent_is_silent_after_45_seconds_and_says_since_when() {
        assert_eq!([0, 44, 45, 900].map(|now| state(seen(0), now)), {
            use BoxState::{Active, Silent};
            [Active, Active, Silent, Silent]
        });
        let standing = seen(7).standing(AgentPresence::Silent);
        assert_eq!((standing.since, standing.by), (Some(at(7)), None));
        assert!(standing.reason.is_some());
        // No agent could call while the coordinator was down.
        let waited = |now| seen(0).presence(Some(at(1000)), at(now));
        assert_eq!([1044, 1045].map(waited), [AgentPresence::Present, AgentPresence::Silent]);
    }

    #[test]
    fn a_goodbye_counts_until_the_agent_is_heard_of_again() {
        let left = |at_second, seen_at| Facts {
            stopped: Some((at(at_second), "told to stop".into())),
            ..seen(seen_at)
        };
        assert_eq!(state(left(10, 10), 11), BoxState::Stopped);
        assert_eq!(state(left(10, 10), 9999), BoxState::Stopped, "and never silent");
        assert_eq!(state(left(10, 30), 31), BoxState::Active);
        assert_eq!(state(left(10, 30), 99), BoxState::Silent);
    }

    #[test]
    fn a_decision_comes_before_all_else() {
        let mut facts = Facts { unfit: Some(("hot".into(), at(3))), ..seen(0) };
        assert_eq!(state(facts.clone(), 5), BoxState::Unfit);
        assert_eq!(state(facts.clone(), 99), BoxState::Silent);
        facts.decided = AgentState::Draining;
        assert_eq!([5, 99].map(|now| state(facts.clone(), now)), [BoxState::Draining; 2]);
        facts.decided = AgentState::Quarantined;
        assert_eq!(state(facts.clone(), 99), BoxState::Quarantined);
        assert_eq!(
            facts.presence(None, at(99)),
            AgentPresence::Silent,
            "and that is told beside it"
        );
    }

    #[test]
    fn one_active_agent_is_enough() {
        let one = |state| AbsentBox {
            agent_id: Uuid::nil(),
            name: "box".into(),
            standing: Standing { state, reason: None, since: None, by: None },
        };
        use BoxState::{Active, Draining, Silent};
        assert_eq!(unattended(vec![one(Silent), one(Active)]), None);
        assert_eq!(unattended(vec![one(Silent), one(Draining)]).unwrap().boxes.len(), 2);
        assert_eq!(unattended(vec![]), Some(Unattended { boxes: vec![], more: 0 }));
        let many = unattended(vec![one(Silent); 23]).unwrap();
        assert_eq!((many.boxes.len(), many.more), (20, 3));
    }
}
