//! Live facts about agents, known only while both sides run: which process is registered for an agent, whether the box
//! is fit, and whether its work makes progress. They are in memory. After a restart of the coordinator the next
//! heartbeats restore them.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use latlas_shared::api::{Heartbeat, Instance};
use uuid::Uuid;

use crate::rules::lease::{self, Pace, Policy};

/// A process that was not heard of for this long counts as ended. An agent calls at least every 20 s: its heartbeats
/// come every 10 s, and a long poll lasts 20 s.
pub const SILENT_AFTER: SignedDuration = SignedDuration::from_secs(45);

/// The process that is registered for an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// The process.
    pub instance: Instance,
    /// When it last spoke.
    pub heard_at: Timestamp,
    /// The previous process on the same boot. It has ended, unless this is a clone.
    pub replaced: Option<Uuid>,
    /// When a second process on the same boot last spoke for the same agent.
    pub contested_at: Option<Timestamp>,
}

/// Whether a process is accepted for an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// The process is accepted; this is the new knowledge.
    Speaks(Running),
    /// Another process is registered, and this one is refused.
    Cloned(Running),
}

/// Decides which process is accepted for an agent.
///
/// A new process takes over when the old one is silent, or at once if it is on the same boot. There an agent locks its
/// state directory, so a second process with it means that the first has ended. If the first process calls again, the
/// directory was copied after all. Then the process that spoke last stays accepted, and no other takes over as long as
/// another one keeps trying.
pub fn admit(known: Option<&Running>, speaker: &Instance, now: Timestamp) -> Admission {
    let recently = |time: Timestamp| now.duration_since(time) < SILENT_AFTER;
    let new = |replaced| {
        let (instance, heard_at) = (speaker.clone(), now);
        Admission::Speaks(Running { instance, heard_at, replaced, contested_at: None })
    };
    let Some(known) = known else { return new(None) };
    if known.instance.id == speaker.id {
        let heard_at = known.heard_at.max(now);
        return Admission::Speaks(Running { heard_at, ..known.clone() });
    }
    if !recently(known.heard_at) {
        return new(None);
    }
    let same_boot = !speaker.boot_id.is_empty() && known.instance.boot_id == speaker.boot_id;
    let contested = known.contested_at.is_some_and(recently);
    if same_boot && !contested && known.replaced != Some(speaker.id) {
        return new(Some(known.instance.id));
    }
    // A process on another boot is refused anyway, and must not prevent a restart of the agent on this box.
    let contested_at = if same_boot { Some(now) } else { known.contested_at };
    Admission::Cloned(Running { contested_at, ..known.clone() })
}

/// The live facts about all agents.
#[derive(Debug, Default)]
pub struct Presence(Mutex<Agents>);

#[derive(Debug, Default)]
struct Agents {
    /// By the agent's number.
    running: HashMap<i64, Running>,
    unfit: HashMap<i64, (String, Timestamp)>,
    /// How far the box's clock is ahead of the coordinator's.
    clocks: HashMap<i64, SignedDuration>,
    paces: HashMap<Uuid, Pace>,
    /// By the agent's number: the progress of its work, whether or not its lease still exists.
    work: HashMap<i64, Pace>,
    awake_since: Option<Timestamp>,
}

impl Presence {
    fn known(&self) -> MutexGuard<'_, Agents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a process is accepted for an agent; if not, the time at which the other one last spoke.
    ///
    /// # Errors
    /// When another process is registered for the agent.
    pub fn hear(&self, agent: i64, speaker: &Instance, now: Timestamp) -> Result<(), Timestamp> {
        let mut known = self.known();
        let (running, result) = match admit(known.running.get(&agent), speaker, now) {
            Admission::Speaks(running) => (running, Ok(())),
            Admission::Cloned(running) => {
                let heard_at = running.heard_at;
                (running, Err(heard_at))
            }
        };
        known.running.insert(agent, running);
        result
    }

    /// Notes what a heartbeat reports about the box, and about the agent's own leases.
    pub fn note(&self, agent: i64, beat: &Heartbeat, own: &[Uuid], now: Timestamp) {
        let mut known = self.known();
        match &beat.unfit {
            Some(reason) => {
                let since = known.unfit.get(&agent).map_or(now, |(_, since)| *since);
                known.unfit.insert(agent, (reason.clone(), since));
            }
            None => {
                known.unfit.remove(&agent);
            }
        }
        if let Some(clock) = beat.clock {
            known.clocks.insert(agent, clock.duration_since(now));
        }
        let Some(visits) = beat.visits else {
            known.work.remove(&agent);
            return;
        };
        let pace = lease::pace(known.work.get(&agent).copied(), visits, now);
        known.work.insert(agent, pace);
        for id in own {
            let pace = lease::pace(known.paces.get(id).copied(), visits, now);
            known.paces.insert(*id, pace);
        }
    }

    /// Why an agent gets no work now, by its own report.
    pub fn unfit(&self, agent: i64) -> Option<String> {
        self.unfit_since(agent).map(|(reason, _)| reason)
    }

    /// The same, and since when.
    pub fn unfit_since(&self, agent: i64) -> Option<(String, Timestamp)> {
        self.known().unfit.get(&agent).cloned()
    }

    /// Since when an agent's work makes no progress, once that is too long. Its lease may have ended already.
    pub fn hangs_since(&self, agent: i64, now: Timestamp, policy: &Policy) -> Option<Timestamp> {
        let known = self.known();
        let pace = known.work.get(&agent)?;
        lease::is_stuck(pace, now, policy).then_some(pace.moved_at)
    }

    /// Forgets an agent that has stopped: the next process is accepted at once.
    pub fn leave(&self, agent: i64) {
        let mut known = self.known();
        known.running.remove(&agent);
        known.unfit.remove(&agent);
        known.work.remove(&agent);
    }

    /// Notes that this coordinator receives calls from now on.
    pub fn wake(&self, now: Timestamp) {
        self.known().awake_since = Some(now);
    }

    /// Since when this coordinator receives calls, if it does.
    pub fn awake_since(&self) -> Option<Timestamp> {
        self.known().awake_since
    }

    /// Notes the time of an agent's clock, if it is reported. Returns how far it is ahead of the coordinator's clock,
    /// if that is known.
    pub fn hear_clock(
        &self,
        agent: i64,
        clock: Option<Timestamp>,
        now: Timestamp,
    ) -> Option<SignedDuration> {
        let mut known = self.known();
        if let Some(clock) = clock {
            known.clocks.insert(agent, clock.duration_since(now));
        }
        known.clocks.get(&agent).copied()
    }

    /// How far an agent's clock is ahead of the coordinator's, by its last report.
    pub fn clock_ahead(&self, agent: i64) -> Option<SignedDuration> {
        self.known().clocks.get(&agent).copied()
    }

    /// Whether a process that enrols with the key of an agent's box can be that box after the loss of its state
    /// directory. This is so if no process is registered for the agent, or if the registered process has the same boot
    /// id: one process per boot uses a key. A process with another boot id is another box with the same key.
    pub fn may_take_over(&self, agent: i64, speaker: Option<&Instance>, now: Timestamp) -> bool {
        let known = self.known();
        let Some(running) = known.running.get(&agent) else { return true };
        let same_boot = speaker.is_some_and(|speaker| {
            !speaker.boot_id.is_empty() && speaker.boot_id == running.instance.boot_id
        });
        same_boot || now.duration_since(running.heard_at) >= SILENT_AFTER
    }

    /// The progress of a lease, as far as its agent has reported it.
    pub fn pace(&self, lease: Uuid) -> Option<Pace> {
        self.known().paces.get(&lease).copied()
    }

    /// The leases without progress.
    pub fn stuck(&self, now: Timestamp, policy: &Policy) -> Vec<(Uuid, Pace)> {
        let known = self.known();
        let stuck = known.paces.iter().filter(|(_, pace)| lease::is_stuck(pace, now, policy));
        stuck.map(|(id, pace)| (*id, *pace)).collect()
    }

    /// Shifts all noted times by the amount by which the clock was set.
    pub fn shift(&self, by: SignedDuration) {
        let mut known = self.known();
        for running in known.running.values_mut() {
            running.heard_at += by;
        }
        for pace in known.paces.values_mut() {
            pace.moved_at += by;
        }
        for pace in known.work.values_mut() {
            pace.moved_at += by;
        }
    }

    /// Forgets a lease that has ended.
    pub fn forget(&self, lease: Uuid) {
        self.known().paces.remove(&lease);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn instance(id: u128, boot: &str) -> Instance {
        Instance { id: Uuid::from_u128(id), boot_id: boot.into() }
    }

    /// The decisions about processes that call one after another, at these seconds.
    fn played(script: &[(i64, u128, &str)]) -> Vec<bool> {
        let mut known = None;
        script
            .iter()
            .map(|&(second, id, boot)| {
                let (next, admitted) = match admit(known.as_ref(), &instance(id, boot), at(second))
                {
                    Admission::Speaks(running) => (running, true),
                    Admission::Cloned(running) => (running, false),
                };
                known = Some(next);
                admitted
            })
            .collect()
    }

    #[test]
    fn a_restart_goes_on_and_a_clone_does_not() {
        // The process was killed and started again at once.
        assert_eq!(played(&[(0, 1, "a"), (2, 2, "a"), (12, 2, "a"), (22, 2, "a")]), [true; 4]);
        // The box was rebooted: the new process is accepted once the old one is silent.
        assert_eq!(played(&[(0, 1, "a"), (30, 2, "b"), (46, 2, "b")]), [true, false, true]);
        // Another box with a copy of the directory, while both run.
        let both =
            [(0, 1, "a"), (5, 2, "b"), (10, 1, "a"), (50, 2, "b"), (55, 1, "a"), (99, 2, "b")];
        assert_eq!(played(&both), [true, false, true, false, true, false]);
        // An agent is restarted while a copy of it elsewhere keeps trying.
        assert_eq!(
            played(&[(0, 1, "a"), (5, 2, "b"), (6, 3, "a"), (7, 2, "b")]),
            [true, false, true, false]
        );
        // Without a boot id, as on a system other than Linux.
        assert_eq!(played(&[(0, 1, ""), (5, 2, ""), (46, 2, "")]), [true, false, true]);
    }

    #[test]
    fn of_two_copies_on_one_box_one_is_accepted() {
        let script = [
            (0, 1, "a"),
            (5, 2, "a"),
            // The first process is alive after all, and is refused, also after a restart.
            (10, 1, "a"),
            (12, 3, "a"),
            (15, 2, "a"),
            (50, 3, "a"),
            (55, 2, "a"),
            // Long after the last attempt of the other process, a restart is accepted again.
            (100, 2, "a"),
            (120, 4, "a"),
        ];
        let expected = [true, true, false, false, true, false, true, true, true];
        assert_eq!(played(&script), expected);
    }

    #[test]
    fn an_agent_is_unfit_until_it_says_otherwise() {
        let presence = Presence::default();
        let beat = |unfit: Option<&str>| Heartbeat {
            unfit: unfit.map(str::to_owned),
            ..Heartbeat::default()
        };
        presence.note(1, &beat(Some("too hot")), &[], at(0));
        assert_eq!((presence.unfit(1).as_deref(), presence.unfit(2)), (Some("too hot"), None));
        presence.note(1, &beat(None), &[], at(10));
        assert_eq!(presence.unfit(1), None);
    }

    #[test]
    fn an_agent_hangs_until_its_work_moves_or_it_has_none() {
        let (presence, policy) = (Presence::default(), Policy::default());
        let beat = |visits| Heartbeat { visits, ..Heartbeat::default() };
        let hangs = |second| presence.hangs_since(1, at(second), &policy);
        presence.note(1, &beat(Some(7)), &[], at(0));
        // The lease is revoked after a while, and the worker still hangs.
        presence.note(1, &beat(Some(7)), &[], at(590));
        assert_eq!([599, 600, 9999].map(hangs), [None, Some(at(0)), Some(at(0))]);
        presence.note(1, &beat(Some(8)), &[], at(10_000));
        assert_eq!(hangs(10_001), None);
        assert_eq!(hangs(10_600), Some(at(10_000)));
        presence.note(1, &beat(None), &[], at(10_600));
        assert_eq!(hangs(99_999), None);
    }

    #[test]
    fn a_lease_that_says_nothing_is_not_stuck() {
        let (presence, policy) = (Presence::default(), Policy::default());
        let (talks, silent) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let beat = |visits| Heartbeat { visits, ..Heartbeat::default() };
        for minute in 0..=policy.stuck.as_mins() {
            presence.note(1, &beat(Some(7)), &[talks], at(60 * minute));
            presence.note(2, &beat(None), &[silent], at(60 * minute));
        }
        let now = at(policy.stuck.as_secs());
        let stuck: Vec<Uuid> = presence.stuck(now, &policy).iter().map(|(id, _)| *id).collect();
        assert_eq!(stuck, [talks]);
        presence.forget(talks);
        assert!(presence.stuck(now, &policy).is_empty());
    }

    proptest! {
        /// Whatever the sequence of calls, two processes of one agent never both stay accepted.
        #[test]
        fn two_that_keep_speaking_never_both_keep_the_word(
            boots in prop::array::uniform2("[ab]"), gaps in prop::collection::vec(1i64..15, 20..60),
        ) {
            let mut now = 0;
            let script: Vec<(i64, u128, &str)> = gaps
                .iter()
                .enumerate()
                .map(|(turn, gap)| {
                    now += gap;
                    (now, turn as u128 % 2, boots[turn % 2].as_str())
                })
                .collect();
            let admitted = played(&script);
            let of = |n: usize| admitted[4..].iter().enumerate().filter(move |(turn, _)| turn % 2 == n);
            let all = |n| of(n).all(|(_, &admitted)| admitted);
            let none = |n| of(n).all(|(_, &admitted)| !admitted);
            prop_assert!((all(0) && none(1)) || (none(0) && all(1)), "{:?}", admitted);
        }
    }
}
