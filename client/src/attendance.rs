//! The state of a request in words, and that of the agents that should work on it.

use jiff::Timestamp;
use latlas_shared::api::{AbsentBox, BoxState, RequestStatus, Unattended};
use latlas_shared::words::{age, count, plain};
use uuid::Uuid;

/// Why no agent takes the tasks of a request, with a line for each agent and the remedies; none if at least one agent
/// takes them.
pub fn nobody(status: &RequestStatus, now: Timestamp) -> Option<String> {
    let Unattended { boxes, more } = status.unattended.as_ref()?;
    let (hardware, config) = (&status.hardware_id, plain(&status.config));
    let all = boxes.len() + *more as usize;
    let mut text = if all == 0 {
        format!("no agent works on it: {hardware} has no agent under {config} any more")
    } else {
        let boxes = match all {
            1 => "the only agent".to_owned(),
            all => format!("none of the {all} agents"),
        };
        let takes = if all == 1 { "takes no tasks" } else { "takes tasks" };
        format!("no agent works on it: {boxes} of {hardware} under {config} {takes} now")
    };
    for one in boxes {
        text.push_str(&format!("\n  {}", absent(one, now)));
    }
    if *more > 0 {
        text.push_str(&format!("\n  and {more} more: `latlas farm agents` lists them"));
    }
    text.push_str(&format!("\n{}", remedy(boxes, status.id)));
    Some(text)
}

/// `vm (0198c5f2): silent for 3 min, its agent ...`
fn absent(one: &AbsentBox, now: Timestamp) -> String {
    let standing = &one.standing;
    let mut text = format!("{} ({}): {}", plain(&one.name), short(one.agent_id), standing.state);
    if let Some(since) = standing.since {
        text.push_str(&format!(" for {}", age(since, now)));
    }
    if let Some(reason) = &standing.reason {
        text.push_str(&format!(", {}", plain(reason)));
    }
    if let Some(by) = &standing.by {
        text.push_str(&format!(" (by {})", plain(by)));
    }
    text
}

/// The remedies for the states of the agents.
fn remedy(boxes: &[AbsentBox], request: Uuid) -> String {
    let any = |states: &[BoxState]| boxes.iter().any(|one| states.contains(&one.standing.state));
    let mut ways = Vec::new();
    if any(&[BoxState::Draining, BoxState::Quarantined]) {
        ways.push(
            "`latlas farm release AGENT` lets a drained or quarantined agent work again".to_owned(),
        );
    }
    if boxes.is_empty() || any(&[BoxState::Silent, BoxState::Stopped]) {
        ways.push("`latlas-agent run` on a box of this class starts one".to_owned());
    }
    ways.push(format!("`latlas request cancel {request}` ends the request"));
    format!("The request waits until one does. {}.", ways.join("; "))
}

/// The agents and their states. A change means that there is something new to report.
pub(crate) fn gist(unattended: &Unattended) -> Vec<(Uuid, BoxState)> {
    unattended.boxes.iter().map(|one| (one.agent_id, one.standing.state)).collect()
}

/// The first characters of an id, which are enough to identify it in most farms.
fn short(id: Uuid) -> String {
    id.to_string().chars().take(8).collect()
}

/// `3 measured, 0 failed, 1 running`.
pub fn tasks(status: &RequestStatus) -> String {
    format!("{} measured, {} failed, {} running", status.done, status.failed, status.running)
}

/// The state of a request, in one word.
pub fn word(status: &RequestStatus) -> &'static str {
    match status {
        RequestStatus { cancelled: Some(_), .. } => "cancelled",
        status if status.is_finished() => "finished",
        RequestStatus { unattended: Some(_), .. } => "unattended",
        RequestStatus { running: 0, .. } => "waiting",
        _ => "running",
    }
}

/// `cancelled by ada 5 min ago, with 3 tasks left`; none if the request was not cancelled.
pub fn cancelled(status: &RequestStatus, now: Timestamp) -> Option<String> {
    let cancelled = status.cancelled.as_ref()?;
    let by = if cancelled.by.is_empty() { "a token without a label" } else { &cancelled.by };
    let tasks = count(cancelled.tasks as usize, "task", "tasks");
    Some(format!("cancelled by {} {} ago, with {tasks} left", plain(by), age(cancelled.at, now)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use latlas_shared::api::Standing;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn status(boxes: Vec<AbsentBox>, more: u32) -> RequestStatus {
        RequestStatus {
            id: Uuid::nil(),
            hardware_id: "test-box-2c.cpu".parse().unwrap(),
            config: "f32-t1".into(),
            space: Some("quick".into()),
            networks: 0,
            created_at: at(0),
            total: 3,
            done: 0,
            failed: 0,
            running: 0,
            failures: Default::default(),
            unattended: Some(Unattended { boxes, more }),
            cancelled: None,
        }
    }

    fn one(name: &str, state: BoxState, reason: &str, by: Option<&str>) -> AbsentBox {
        let (reason, by) = (Some(reason.to_owned()), by.map(str::to_owned));
        let standing = Standing { state, reason, since: Some(at(0)), by };
        AbsentBox { agent_id: Uuid::from_u128(7 << 96), name: name.into(), standing }
    }

    #[test]
    fn each_box_is_named_with_why_and_how_to_go_on() {
        let boxes = vec![
            one("vm", BoxState::Silent, "its power ended", None),
            one("lab\u{1b}", BoxState::Draining, "it moves", Some("admin")),
        ];
        let text = nobody(&status(boxes, 1), at(190)).unwrap();
        let expected = "\
no agent works on it: none of the 3 agents of test-box-2c.cpu under f32-t1 takes tasks now
  vm (00000007): silent for 3 min, its power ended
  lab  (00000007): draining for 3 min, it moves (by admin)
  and 1 more: `latlas farm agents` lists them
The request waits until one does. `latlas farm release AGENT` lets a drained or quarantined agent work again; `latlas-agent run` \
on a box of this class starts one; `latlas request cancel 00000000-0000-0000-0000-000000000000` ends the request.";
        assert_eq!(text, expected);
        let alone =
            nobody(&status(vec![one("vm", BoxState::Unfit, "hot", None)], 0), at(9)).unwrap();
        assert!(
            alone.contains("the only agent of test-box-2c.cpu under f32-t1 takes no tasks now")
        );
        assert!(!alone.contains("release") && !alone.contains("latlas-agent run"), "{alone}");
        let none = nobody(&status(vec![], 0), at(9)).unwrap();
        assert!(none.contains("has no agent") && none.contains("latlas-agent run"), "{none}");
    }

    #[test]
    fn somebody_is_worth_no_word() {
        let mut attended = status(vec![], 0);
        attended.unattended = None;
        assert_eq!((nobody(&attended, at(0)), word(&attended)), (None, "waiting"));
    }
}
