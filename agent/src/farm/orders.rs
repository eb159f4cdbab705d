//! The agent's reports in each heartbeat, and the coordinator's orders in the answers.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use jiff::{Timestamp, ZonedDateTime};
use latlas_client::ClientError;
use latlas_shared::Fingerprint;
use latlas_shared::api::{
    AGENT_CLONED, AgentState, Heartbeat, Instance, Lease, LeaseCall, Orders, Renewed,
};
use serde_json::Value;
use uuid::Uuid;

use super::Farm;
use crate::system::{System, unfit};

/// After a reboot the coordinator accepts a new process once the old process has been silent for 45 s.
pub const CLONE_PATIENCE: Duration = Duration::from_secs(60);

/// Time between two polls of an agent that gets no work because it is quarantined or unfit.
const SLOWLY: Duration = Duration::from_secs(20);

/// What to do before asking for tasks.
pub enum Advice {
    /// Ask for tasks.
    Ask,
    /// Ask for tasks at long intervals: only canaries are available.
    AskSlowly,
    /// Do not ask now.
    Wait,
    /// Leave the farm.
    Leave,
}

/// The identity of this process among all processes with this agent's credential.
pub fn instance(system: &System) -> Instance {
    Instance { id: Uuid::now_v7(), boot_id: system.boot_id() }
}

/// Locks a state directory for this process, as long as the file is open.
///
/// # Errors
/// When another process holds the lock, or the directory cannot be written.
pub fn lock(state: &Path) -> Result<File> {
    let path = state.join("lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = file.with_context(|| format!("opening {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!(
            "another latlas-agent works with the state directory {}: stop it, or give this one its own \
             with --state DIR",
            state.display()
        ),
        Err(TryLockError::Error(e)) => {
            Err(e).with_context(|| format!("locking {}", path.display()))
        }
    }
}

/// Whether another process has this agent's credential.
pub fn is_cloned(error: &ClientError) -> bool {
    matches!(error, ClientError::Refused(problem) if problem.kind.ends_with(AGENT_CLONED))
}

/// Whether a new process should continue although another process is registered for its agent. That process may be the
/// agent's own process from before a reboot.
pub fn may_be_its_own_past(error: &anyhow::Error, started: Instant) -> bool {
    error.downcast_ref::<ClientError>().is_some_and(is_cloned) && started.elapsed() < CLONE_PATIENCE
}

/// A description of the facts that have changed; none if all are equal.
fn changes(was: &Fingerprint, is: &Fingerprint) -> Option<String> {
    let flat = |fingerprint: &Fingerprint| -> Vec<(String, Value)> {
        let Ok(Value::Object(mut fields)) = serde_json::to_value(fingerprint) else {
            return vec![];
        };
        let facts = fields.remove("facts");
        let facts = facts.as_ref().and_then(Value::as_object).into_iter().flatten();
        facts.map(|(k, v)| (k.clone(), v.clone())).chain(fields.clone()).collect()
    };
    let (was, is) = (flat(was), flat(is));
    let find = |all: &[(String, Value)], name: &str| {
        all.iter().find(|(other, _)| other == name).map_or(Value::Null, |(_, value)| value.clone())
    };
    let mut names: Vec<&String> = was.iter().chain(&is).map(|(name, _)| name).collect();
    names.sort();
    names.dedup();
    let changed: Vec<String> = names
        .into_iter()
        .map(|name| (name, find(&was, name), find(&is, name)))
        .filter(|(_, before, now)| before != now)
        .map(|(name, before, now)| format!("{name} was {before} and is {now}"))
        .collect();
    (!changed.is_empty()).then(|| changed.join(", "))
}

/// The first line of a reason, cut to the coordinator's limit.
fn shortened(reason: String) -> String {
    const LONGEST: usize = 300;
    let line = reason.lines().next().unwrap_or_default();
    match line.char_indices().take_while(|(at, c)| at + c.len_utf8() <= LONGEST).last() {
        Some((at, last)) => line[..at + last.len_utf8()].to_owned(),
        None => String::new(),
    }
}

impl Farm {
    /// Sends one heartbeat. `visits` is the number of visits for the leases.
    ///
    /// # Errors
    /// When the coordinator does not answer or refuses.
    async fn beat(
        &self,
        leases: Vec<Uuid>,
        visits: Option<u64>,
        unfit: Option<String>,
    ) -> Result<Orders, ClientError> {
        let beat = Heartbeat {
            leases,
            telemetry: self.recorder.system().telemetry(),
            visits,
            unfit,
            instance: Some(self.instance.clone()),
            leaving: None,
            clock: Some(Timestamp::now()),
        };
        self.client.put(&format!("v1/agents/{}/heartbeat", self.identity.agent_id), &beat).await
    }

    /// Reports that this agent stops, and why. The coordinator takes back the agent's leases, and expects no more
    /// heartbeats.
    ///
    /// # Errors
    /// When the coordinator does not answer or refuses.
    pub(super) async fn leave(&self, reason: String) -> Result<(), ClientError> {
        let beat = Heartbeat {
            instance: Some(self.instance.clone()),
            leaving: Some(shortened(reason)),
            ..Heartbeat::default()
        };
        let path = format!("v1/agents/{}/heartbeat", self.identity.agent_id);
        self.client.put::<_, Orders>(&path, &beat).await.map(drop)
    }

    /// Sends a heartbeat. The answer says whether to ask for tasks.
    ///
    /// # Errors
    /// When the coordinator does not answer or refuses, or the box has changed since the agent started. Measurements of
    /// a changed box would be stored under its old fingerprint.
    pub(super) async fn advice(&self) -> Result<Advice> {
        let system = self.recorder.system();
        let now = system.fingerprint(self.recorder.fingerprint.device)?;
        if let Some(changes) = changes(&self.recorder.fingerprint, &now) {
            bail!(
                "this box has changed since the agent was started ({changes}): start it again with \
                 --enroll-token-file, so that it enrols as what it is now"
            );
        }
        let at_this_hour = self.hours.and_then(|hours| hours.unfit(ZonedDateTime::now().time()));
        let unfit = at_this_hour.or_else(|| unfit(&system.telemetry(), self.busy_limit));
        let orders = self.beat(vec![], None, unfit.clone()).await?;
        let reason = orders.reason.unwrap_or_default();
        match (orders.state, unfit) {
            (AgentState::Draining, _) => {
                tracing::info!("leaving, as an admin has decided: {reason}");
                Ok(Advice::Leave)
            }
            (_, Some(unfit)) => {
                tracing::warn!("no work now: {unfit}");
                Ok(Advice::Wait)
            }
            (AgentState::Quarantined, None) => {
                tracing::warn!("in quarantine: {reason}");
                Ok(Advice::AskSlowly)
            }
            (AgentState::Active, None) => Ok(Advice::Ask),
        }
    }

    /// Waits before the next poll.
    pub(super) async fn wait_slowly(&self) {
        self.pause(SLOWLY).await;
    }

    /// Renews the lease and sends a heartbeat; false when the lease is lost. If the coordinator does not answer,
    /// measuring goes on.
    pub(super) async fn keep(&self, lease: &Lease, visits: u64) -> bool {
        let path = format!("v1/leases/{}/renew", lease.id);
        let call = LeaseCall { instance: Some(self.instance.clone()) };
        let renewed = self.client.post::<_, Renewed>(&path, &call).await;
        if let Err(e) = &renewed
            && matches!(e.status(), Some(401 | 404 | 409))
        {
            return false;
        }
        match self.beat(vec![lease.id], Some(visits), None).await {
            Ok(orders) => !orders.cancelled_leases.contains(&lease.id),
            Err(e) if is_cloned(&e) => false,
            Err(e) => {
                // Only the coordinator decides by its own clock whether the lease has ended.
                tracing::warn!("{e}; measuring goes on");
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::tests::unpacked;
    use latlas_shared::Device;
    use latlas_shared::api::Problem;

    #[test]
    fn a_state_directory_has_one_agent() {
        let state = tempfile::tempdir().unwrap();
        let first = lock(state.path()).unwrap();
        let error = lock(state.path()).unwrap_err().to_string();
        assert!(error.contains("another latlas-agent") && error.contains("--state DIR"), "{error}");
        drop(first);
        lock(state.path()).unwrap();
    }

    #[test]
    fn a_reason_is_one_short_line() {
        assert_eq!(shortened("it failed\nbecause".into()), "it failed");
        let long = shortened("ä".repeat(500));
        assert!(long.len() <= 300 && long.len() > 296, "{}", long.len());
    }

    #[test]
    fn what_has_changed_is_named() {
        let (_dir, system) = unpacked("orin-nano-jetpack6");
        let was = system.fingerprint(Device::Cpu).unwrap();
        assert_eq!(changes(&was, &was), None);
        let mut is = was.clone();
        is.kernel = Some("6.1".into());
        is.facts.insert("jetson_clocks".into(), "other".into());
        let text = changes(&was, &is).unwrap();
        assert!(text.contains("kernel was ") && text.contains(" and is \"6.1\""), "{text}");
        assert!(text.contains("jetson_clocks was "), "{text}");
        assert_eq!(text.matches(" and is ").count(), 2, "{text}");
    }

    #[test]
    fn a_clone_is_told_from_other_refusals() {
        let refused = |kind: &str| {
            ClientError::Refused(Problem {
                kind: format!("/problems/{kind}"),
                title: String::new(),
                status: 409,
                detail: String::new(),
            })
        };
        assert!(is_cloned(&refused("agent-cloned")) && !is_cloned(&refused("lease-lost")));
        let now = Instant::now();
        assert!(may_be_its_own_past(&refused("agent-cloned").into(), now));
        assert!(!may_be_its_own_past(&refused("lease-lost").into(), now));
        let long_ago = now.checked_sub(CLONE_PATIENCE).unwrap();
        assert!(!may_be_its_own_past(&refused("agent-cloned").into(), long_ago));
    }
}
