//! The agent as a member of a farm: it enrols, takes leases, uploads results, and shuts down.

mod box_key;
mod identity;
mod measuring;
mod metrics;
mod orders;
mod outbox;
mod service;

use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use latlas_client::{Client, ClientError, TlsFiles};
use latlas_shared::api::{Instance, LeaseAnswer, LeaseCall, LeaseRequest};
use sd_notify::NotifyState;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::engine::Launch;
use crate::record::Recorder;
use crate::spool::Spool;
use crate::system::Hours;
pub use identity::EnrolToken;
use identity::Identity;
use measuring::LastWork;
use metrics::Metrics;
use orders::Advice;
use outbox::{Backoff, Outbox};
use service::Stop;

/// Tasks of one lease: enough that visits to one key are spread over minutes.
const LEASE_TASKS: u32 = 64;
/// How long to wait for tasks before asking again, in seconds.
const LEASE_WAIT: u32 = 20;
/// With `--once`, the number of tries to reach the coordinator before giving up.
const ONCE_TRIES: u32 = 6;
/// An agent that ends waits this long until the coordinator has its results. It waits again as long to release the
/// lease and report its stop.
const GOODBYE: Duration = Duration::from_secs(5);
/// The longest time between two watchdog notifications to the service manager.
const FEED: Duration = Duration::from_secs(60);

/// The settings of an agent.
pub struct Settings {
    /// Address of the coordinator.
    pub coordinator: String,
    /// Certificates to trust in addition to the system's.
    pub tls: TlsFiles,
    /// Token to enrol with.
    pub enroll_token: EnrolToken,
    /// An id that distinguishes this box from all others. None: it is derived from facts about the machine.
    pub box_id: Option<String>,
    /// The directory of identity and spool.
    pub state: PathBuf,
    /// The name to enrol under; by default the host name.
    pub name: Option<String>,
    /// Whether to leave when no task is left.
    pub once: bool,
    /// The agent takes work up to this CPU pressure: percent of the time in which tasks of this machine wait for a
    /// processor.
    pub busy_limit: f64,
    /// The hours in which this box may work; none: always.
    pub hours: Option<Hours>,
    /// The address of the agent's own metrics, if they are enabled.
    pub metrics: Option<SocketAddr>,
    /// How workers are started.
    pub launch: Launch,
}

/// An agent that has entered a farm.
pub struct Farm {
    client: Client,
    identity: Identity,
    /// Whether the coordinator has confirmed that it is the farm of this identity.
    verified: bool,
    /// Reserves the box's key on this machine, if the box has one.
    _claim: Option<UnixListener>,
    outbox: Outbox,
    /// The directory of identity, spool and the references of earlier runs.
    state: PathBuf,
    recorder: Recorder,
    launch: Launch,
    once: bool,
    busy_limit: f64,
    hours: Option<Hours>,
    /// This process.
    instance: Instance,
    metrics: Arc<Metrics>,
    /// The lease to be released.
    lease: Option<Uuid>,
    /// The id of the requested lease, until there is an answer.
    asking: Option<Uuid>,
    /// None before the first lease.
    last_work: Option<LastWork>,
    stop: Stop,
    /// The lock of the state directory.
    _lock: File,
}

impl Farm {
    /// Enrols, or continues with the identity of an earlier start.
    ///
    /// # Errors
    /// When the state directory cannot be used, or the coordinator does not answer or refuses.
    pub async fn enter(settings: Settings, recorder: Recorder) -> Result<Farm> {
        std::fs::create_dir_all(&settings.state)
            .with_context(|| format!("creating {}", settings.state.display()))?;
        let lock = orders::lock(&settings.state)?;
        let metrics = Metrics::new(&recorder.hardware_id, &recorder.run_config.id());
        let metrics = Arc::new(metrics);
        let instance = orders::instance(recorder.system());
        let outbox = Outbox::new(Spool::open(&settings.state)?, Arc::clone(&metrics))
            .sent_by(instance.clone());
        if let Some(address) = settings.metrics {
            metrics::serve(address, Arc::clone(&metrics)).await?;
        }
        let client = Client::with_tls(&settings.tls, &settings.coordinator, None)?;
        let entry = identity::Entry {
            state: &settings.state,
            token: settings.enroll_token,
            box_id: settings.box_id,
            name: settings.name,
            instance: &instance,
        };
        let identity::Entered { identity, verified, claim } =
            identity::identify(&client, entry, &recorder).await?;
        let client = client.with_token(identity.credential.clone());
        Ok(Farm {
            client,
            identity,
            verified,
            _claim: claim,
            outbox,
            state: settings.state,
            instance,
            recorder,
            launch: settings.launch,
            once: settings.once,
            busy_limit: settings.busy_limit,
            hours: settings.hours,
            metrics,
            lease: None,
            asking: None,
            last_work: None,
            stop: Stop::on_signals()?,
            _lock: lock,
        })
    }

    /// Works until a stop is requested or the farm tells the agent to leave, or with `--once` until no task is left. In
    /// each case the agent finally sends its results and releases the lease, if the coordinator answers.
    ///
    /// # Errors
    /// When the coordinator refuses this agent, the spool cannot be read, results are lost, or with `--once` the
    /// coordinator does not answer.
    pub async fn work(mut self) -> Result<()> {
        service::tell(NotifyState::Ready);
        tracing::info!(
            "{} takes work from {} under {}",
            self.identity.agent_id,
            self.client.base(),
            self.identity.run_config
        );
        let worked = self.until_done().await;
        service::tell(NotifyState::Stopping);
        // An agent whose credential is refused cannot report its end.
        if status(&worked) != Some(401) {
            let reason = self.why_it_ends(&worked);
            self.say_goodbye(reason).await;
        }
        let closed = self.outbox.close();
        if worked.is_err()
            && let Err(lost) = &closed
        {
            tracing::error!("{lost:#}");
        }
        worked.and(closed)
    }

    /// The reason that the coordinator gets.
    fn why_it_ends(&self, worked: &Result<()>) -> String {
        match worked {
            Err(error) => format!("it ended with an error: {error:#}"),
            Ok(()) if self.stop.asked() => "it was told to stop on its box".to_owned(),
            Ok(()) if self.once => "no task was left, and it was started with --once".to_owned(),
            Ok(()) => "it was drained".to_owned(),
        }
    }

    async fn until_done(&mut self) -> Result<()> {
        let mut backoff = Backoff::new();
        let mut failures = 0;
        let started = Instant::now();
        while !self.stop.asked() {
            service::tell(NotifyState::Watchdog);
            match self.step().await {
                Ok(Step::Worked) => {
                    backoff = Backoff::new();
                    failures = 0;
                }
                Ok(Step::Leave) => return Ok(()),
                Ok(Step::NoTask) if self.once => return Ok(()),
                Ok(Step::NoTask) => backoff = Backoff::new(),
                Err(e) => {
                    failures += 1;
                    let again = is_transient(&e) || orders::may_be_its_own_past(&e, started);
                    if !again || (self.once && failures >= ONCE_TRIES) {
                        return Err(self.explained(e));
                    }
                    let asked = client_error(&e).and_then(ClientError::retry_after);
                    let wait = backoff.step(asked);
                    tracing::warn!("{e:#}; trying again in {:.0} s", wait.as_secs_f64());
                    self.pause(wait).await;
                }
            }
        }
        Ok(())
    }

    /// Adds the remedy to the error of a refused credential.
    fn explained(&self, error: anyhow::Error) -> anyhow::Error {
        if client_error(&error).and_then(ClientError::status) != Some(401) {
            return error;
        }
        error.context(format!(
            "the credential of this agent was refused, so it stops; what is measured stays in {}. If it was \
             revoked by mistake, remove {} and start the agent with a new enrol token",
            self.outbox.folder().display(),
            self.state.join("identity.json").display()
        ))
    }

    /// Waits, or returns at once when a stop is requested.
    async fn pause(&self, time: Duration) {
        let until = tokio::time::Instant::now() + time;
        while !self.stop.asked() && tokio::time::Instant::now() < until {
            tokio::select! {
                () = tokio::time::sleep_until(until) => {}
                () = sleep(FEED) => service::tell(NotifyState::Watchdog),
                () = self.stop.until_asked() => {}
            }
        }
    }

    /// Sends unsent results and releases the lease of the last step. Then it takes a lease, if the advice allows, and
    /// works on it.
    async fn step(&mut self) -> Result<Step> {
        if !self.verified {
            // The check comes before the credential is sent, and before results could go to the wrong farm.
            identity::check_farm(&self.client, &self.identity).await?;
            self.verified = true;
        }
        self.send().await?;
        let stop = self.stop.clone();
        tokio::select! {
            given = self.give_back() => given?,
            () = stop.until_asked() => return Ok(Step::Worked),
        }
        let advice = tokio::select! {
            advice = self.advice() => advice?,
            () = stop.until_asked() => return Ok(Step::Worked),
        };
        match advice {
            Advice::Leave => return Ok(Step::Leave),
            // An unfit state is temporary. `--once` leaves when no task is left, not when the box is busy.
            Advice::Wait => {
                self.wait_slowly().await;
                return Ok(Step::Worked);
            }
            Advice::Ask | Advice::AskSlowly if self.is_hot() => {
                tracing::info!("no work now: the device rests after a sustained run");
                self.wait_slowly().await;
                return Ok(Step::Worked);
            }
            Advice::Ask | Advice::AskSlowly => {}
        }
        let asking = *self.asking.get_or_insert_with(Uuid::new_v4);
        let request = LeaseRequest {
            max_tasks: LEASE_TASKS,
            lease_id: Some(asking),
            wait_seconds: if self.once { 0 } else { LEASE_WAIT },
            instance: Some(self.instance.clone()),
        };
        let path = format!("v1/agents/{}/leases", self.identity.agent_id);
        let poll = self.client.post::<_, LeaseAnswer>(&path, &request);
        let answer = tokio::select! {
            answer = poll => answer?,
            () = self.stop.until_asked() => {
                // The coordinator may have granted the lease already.
                self.lease = Some(asking);
                return Ok(Step::Worked);
            }
        };
        self.asking = None;
        self.metrics.answered();
        let Some(lease) = answer.lease else {
            if matches!(advice, Advice::AskSlowly) && !self.once {
                self.wait_slowly().await;
            }
            return Ok(Step::NoTask);
        };
        tracing::info!("lease {} with {} tasks", lease.id, lease.tasks.len());
        self.lease = Some(lease.id);
        let worked = self.work_on(&lease).await;
        self.metrics.leased(0);
        worked.map(|()| Step::Worked)
    }

    /// Sends unsent results. A stop request interrupts it, since a last try follows.
    async fn send(&mut self) -> Result<()> {
        tokio::select! {
            sent = self.outbox.upload(&self.client) => sent,
            () = self.stop.until_asked() => Ok(()),
        }
    }

    /// Releases the lease, if there is one. Its unmeasured tasks go to other agents at once, and no attempt is counted.
    async fn give_back(&mut self) -> Result<(), ClientError> {
        let Some(id) = self.lease else { return Ok(()) };
        let path = format!("v1/leases/{id}/release");
        let call = LeaseCall { instance: Some(self.instance.clone()) };
        match self.client.post::<_, ()>(&path, &call).await {
            Ok(()) => {}
            // Finished or expired leases need no release.
            Err(e) if matches!(e.status(), Some(404 | 409)) => {}
            Err(e) => return Err(e),
        }
        self.lease = None;
        Ok(())
    }

    /// Sends the remaining results, releases the lease and reports that this agent stops, as far as the coordinator
    /// answers in time. Results come first: a finished task must not go to another agent.
    async fn say_goodbye(&mut self, reason: String) {
        match timeout(GOODBYE, self.outbox.upload(&self.client)).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => tracing::warn!("{e:#}"),
            Err(_) => tracing::warn!("the coordinator did not take the results in time"),
        }
        let leaving = async {
            self.give_back().await?;
            self.leave(reason).await
        };
        match timeout(GOODBYE, leaving).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => tracing::warn!("the lease runs out by itself: {e}"),
            Err(_) => tracing::warn!("the lease runs out by itself: no answer in time"),
        }
    }
}

enum Step {
    Worked,
    NoTask,
    Leave,
}

fn client_error(error: &anyhow::Error) -> Option<&ClientError> {
    error.downcast_ref()
}

fn is_transient(error: &anyhow::Error) -> bool {
    client_error(error).is_some_and(ClientError::is_transient)
}

/// The HTTP status of the refusal that ended the work.
fn status(worked: &Result<()>) -> Option<u16> {
    worked.as_ref().err().and_then(client_error).and_then(ClientError::status)
}
