//! Incidents: events that the host is told about. The incidents are a pure function of the states of the agents.

use std::collections::BTreeMap;

use jiff::Timestamp;
use latlas_shared::api::{AbsentBox, BoxState};
use serde::{Deserialize, Serialize};

use crate::rules::standing::AgentNow;

/// The most agents that an incident lists.
const MOST_AGENTS: usize = 20;

/// A kind of incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// No agent with this hardware id and run config works any more, and at least one fell silent.
    ClassSilent,
    /// An agent sends heartbeats, but its work makes no progress.
    BoxHangs,
    /// The farm itself quarantined an agent.
    BoxQuarantined,
}

impl Kind {
    /// The name in JSON and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Kind::ClassSilent => "class_silent",
            Kind::BoxHangs => "box_hangs",
            Kind::BoxQuarantined => "box_quarantined",
        }
    }
}

/// An event that the host is told about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// What happened.
    pub kind: Kind,
    /// The class of device.
    pub hardware_id: String,
    /// Id of the run config.
    pub config: String,
    /// The agent; for a silent class the silent agents, at most 20.
    pub boxes: Vec<AbsentBox>,
    /// The incident as text.
    pub text: String,
}

impl Incident {
    fn of_agent(kind: Kind, one: &AgentNow, text: String) -> (String, Incident) {
        let subject = format!("{} {}", kind.name(), one.agent_id);
        let (hardware_id, config) = (one.hardware_id.clone(), one.config.clone());
        (subject, Incident { kind, hardware_id, config, boxes: vec![listed(one)], text })
    }
}

fn listed(one: &AgentNow) -> AbsentBox {
    AbsentBox { agent_id: one.agent_id, name: one.name.clone(), standing: one.standing.clone() }
}

/// The incidents of a farm with these agents, by subject: a text that identifies an incident while it lasts.
///
/// An agent that stops cleanly is not an incident. Neither is a decision of an admin.
pub fn incidents(agents: &[AgentNow]) -> BTreeMap<String, Incident> {
    let mut found = BTreeMap::new();
    let mut classes: BTreeMap<(&str, &str), Vec<&AgentNow>> = BTreeMap::new();
    for one in agents {
        classes.entry((&one.hardware_id, &one.config)).or_default().push(one);
        if let Some(since) = one.hangs_since {
            let text =
                format!("{} sends heartbeats, and its work does not move since {since}", one.name);
            found.extend([Incident::of_agent(Kind::BoxHangs, one, text)]);
        }
        let by_the_farm = one.standing.by.as_deref().is_some_and(|by| by != "admin");
        if one.standing.state == BoxState::Quarantined && by_the_farm {
            let reason = one.standing.reason.as_deref().unwrap_or_default();
            let text = format!("{} was put into quarantine: {reason}", one.name);
            found.extend([Incident::of_agent(Kind::BoxQuarantined, one, text)]);
        }
    }
    for ((hardware_id, config), agents) in classes {
        let works =
            |one: &&AgentNow| matches!(one.standing.state, BoxState::Active | BoxState::Unfit);
        let mut silent: Vec<&AgentNow> =
            agents.iter().filter(|one| one.standing.state == BoxState::Silent).copied().collect();
        if silent.is_empty() || agents.iter().any(works) {
            continue;
        }
        // The most recently heard agent comes first.
        silent.sort_by_key(|one| std::cmp::Reverse(one.seen_at));
        let stopped = |one: &&&AgentNow| one.standing.state == BoxState::Stopped;
        let last_stop = agents.iter().filter(stopped).map(|one| one.seen_at).max();
        if last_stop.is_some_and(|last| last > silent[0].seen_at) {
            continue;
        }
        let text = format!(
            "no agent of {hardware_id} works: {} was the last one, heard of at {}",
            silent[0].name, silent[0].seen_at
        );
        let incident = Incident {
            kind: Kind::ClassSilent,
            hardware_id: hardware_id.to_owned(),
            config: config.to_owned(),
            boxes: silent.into_iter().take(MOST_AGENTS).map(listed).collect(),
            text,
        };
        found.insert(format!("{} {hardware_id} {config}", Kind::ClassSilent.name()), incident);
    }
    found
}

/// The document on the command's stdin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Alarm {
    /// `opened` or `resolved`.
    pub event: &'static str,
    /// The incident's number: equal in both events.
    pub id: i64,
    /// When it was detected.
    pub opened_at: Timestamp,
    /// When it ended.
    pub resolved_at: Option<Timestamp>,
    /// What happened.
    #[serde(flatten)]
    pub incident: Incident,
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::SignedDuration;
    use latlas_shared::api::{AgentPresence, Standing};
    use uuid::Uuid;

    fn one(name: &str, hardware: &str, state: BoxState, by: Option<&str>) -> AgentNow {
        let standing =
            Standing { state, reason: Some("why".into()), since: None, by: by.map(str::to_owned) };
        AgentNow::for_tests(name, hardware, standing, AgentPresence::Present)
    }

    fn kinds(agents: &[AgentNow]) -> Vec<(Kind, String)> {
        incidents(agents).into_values().map(|i| (i.kind, i.hardware_id)).collect()
    }

    #[test]
    fn a_class_is_silent_when_its_last_agent_is() {
        use BoxState::{Active, Draining, Quarantined, Silent, Stopped, Unfit};
        let silent = || one("a", "h", Silent, None);
        for (others, is) in [
            (vec![], true),
            (vec![Silent], true),
            (vec![Stopped, Draining, Quarantined], true),
            (vec![Active], false),
            (vec![Unfit], false),
        ] {
            let mut agents = vec![silent(), one("elsewhere", "other", Active, None)];
            agents.extend(others.iter().map(|&state| one("b", "h", state, Some("admin"))));
            let found = kinds(&agents);
            let expected = vec![(Kind::ClassSilent, "h".to_owned())];
            assert_eq!(found, if is { expected } else { vec![] }, "{others:?}");
        }
        assert_eq!(kinds(&[one("a", "h", Stopped, None)]), [], "it stopped in order");
    }

    #[test]
    fn a_class_names_the_agent_that_was_heard_of_last() {
        let mut agents =
            [one("a", "h", BoxState::Silent, None), one("b", "h", BoxState::Silent, None)];
        agents[1].seen_at += SignedDuration::from_secs(1);
        let found = incidents(&agents);
        let incident = &found["class_silent h c"];
        assert_eq!(incident.boxes[0].name, "b");
        assert!(incident.text.contains("b was the last one"), "{}", incident.text);
        // If the last agent had stopped cleanly, somebody would know about it.
        agents[1].standing.state = BoxState::Stopped;
        assert_eq!(kinds(&agents), []);
    }

    #[test]
    fn what_an_admin_decides_is_no_incident() {
        let quarantined = |by| kinds(&[one("a", "h", BoxState::Quarantined, Some(by))]).len();
        assert_eq!((quarantined("canary"), quarantined("admin")), (1, 0));
    }

    #[test]
    fn an_agent_that_hangs_is_one() {
        let mut hangs = one("a", "h", BoxState::Active, None);
        assert_eq!(kinds(std::slice::from_ref(&hangs)), []);
        hangs.hangs_since = Some(Timestamp::UNIX_EPOCH);
        assert_eq!(kinds(&[hangs]), [(Kind::BoxHangs, "h".to_owned())]);
    }

    #[test]
    fn kinds_and_agent_ids_make_subjects() {
        let found = incidents(&[one("a", "h", BoxState::Quarantined, Some("canary"))]);
        assert_eq!(found.keys().collect::<Vec<_>>(), [&format!("box_quarantined {}", Uuid::nil())]);
    }
}
