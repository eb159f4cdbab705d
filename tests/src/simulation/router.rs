//! The complete coordinator: its routes, its store, a SQLite file. Only the network and the clock are simulated.

use std::fs;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::Poll;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use jiff::Timestamp;
use latlas_coordinator::limits::Rate;
use latlas_coordinator::store::{Actor, NewToken, Store};
use latlas_coordinator::token::{Role, Terms, Token};
use latlas_coordinator::{App, DATABASE, Settings, build_app};
use latlas_shared::api::{
    Enrolled, Heartbeat, LeaseAnswer, Orders, Renewed, RequestStatus, Results, ResultsAnswer,
    TaskWork,
};
use latlas_shared::{Measurement, Subject};
use ops_catalog::{Catalog, OpKey};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tempfile::TempDir;
use tower::ServiceExt as _;

use super::{AGENTS, Answer, Call, Coordinator, KEYS, Leased, Report, clock};
use crate::invariants::Books;
use crate::synthetic::{self, Observed};

/// The most tasks of a simulated lease.
pub const MAX_TASKS: u32 = 4;

/// A box's reason for having no number.
pub const TOO_LARGE: &str = "it needs up to 9 MiB of memory, and the limit is 1 MiB";

/// A database with enrolled agents, from which each run starts.
pub struct Template {
    database: Vec<u8>,
    researcher: String,
    agents: Vec<Enrolled>,
}

/// A running coordinator.
pub struct Real<'a> {
    template: &'a Template,
    dir: TempDir,
    /// Counts the starts; each has a folder of its own.
    start: u32,
    now: Arc<AtomicI64>,
    store: Store,
    router: Router,
}

/// A folder in memory, if there is one: only processes die here, and there is no power loss.
fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    folder.unwrap()
}

async fn open(database: &Path, now: &Arc<AtomicI64>) -> (Store, Router) {
    let store = Store::open(database).await.unwrap();
    let now = Arc::clone(now);
    let clock = move || Timestamp::from_microsecond(now.load(Ordering::Relaxed)).unwrap();
    // Simulated hours pass in moments, and rate limits use real time.
    let settings = Settings { rate: Rate::per_second(1_000_000), ..Settings::default() };
    let app = App::with_clock(store.clone(), settings, clock);
    (store, build_app(app))
}

async fn send(
    router: &Router,
    method: Method,
    path: String,
    token: &str,
    body: &impl Serialize,
) -> (StatusCode, String) {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/json");
    answer(router, request, serde_json::to_vec(body).unwrap()).await
}

async fn answer(
    router: &Router,
    request: axum::http::request::Builder,
    body: Vec<u8>,
) -> (StatusCode, String) {
    let request = request.body(Body::from(body)).unwrap();
    let (parts, body) = router.clone().oneshot(request).await.unwrap().into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    (parts.status, String::from_utf8_lossy(&body).into_owned())
}

impl Template {
    /// Creates a template.
    pub async fn new() -> Template {
        let dir = folder();
        let database = dir.path().join(DATABASE);
        let now = Arc::new(AtomicI64::new(clock(0, 0).as_microsecond()));
        let (store, router) = open(&database, &now).await;
        let mut tokens = Vec::new();
        for role in [Role::Researcher, Role::Enroll] {
            let token = Token::generate(role).unwrap();
            let new = NewToken { role, label: role.name().to_owned(), terms: Terms::default() };
            store.add_token(&token, &new, &Actor::CommandLine, clock(0, 0)).await.unwrap();
            tokens.push(token.reveal().to_owned());
        }
        let mut agents = Vec::new();
        for (index, memory) in AGENTS.into_iter().enumerate() {
            let enrolment = synthetic::enrolment(&format!("box-{index}"), memory);
            let path = "/v1/agents".to_owned();
            let (status, text) = send(&router, Method::POST, path, &tokens[1], &enrolment).await;
            assert_eq!(status, StatusCode::CREATED, "{text}");
            agents.push(serde_json::from_str(&text).unwrap());
        }
        store.close().await;
        Template { database: fs::read(&database).unwrap(), researcher: tokens.remove(0), agents }
    }
}

impl<'a> Real<'a> {
    /// A separate coordinator for one run.
    pub async fn new(template: &'a Template) -> Real<'a> {
        let dir = folder();
        let database = database(&dir, 0);
        fs::create_dir(database.parent().unwrap()).unwrap();
        fs::write(&database, &template.database).unwrap();
        let now = Arc::new(AtomicI64::new(clock(0, 0).as_microsecond()));
        let (store, router) = open(&database, &now).await;
        Real { template, dir, start: 0, now, store, router }
    }

    async fn answer(&self, agent: usize, call: &Call) -> Answer {
        let Enrolled { agent_id, credential, .. } = &self.template.agents[agent];
        let post = Method::POST;
        match call {
            Call::Lease(id) => {
                let path = format!("/v1/agents/{agent_id}/leases");
                let body = json!({"max_tasks": MAX_TASKS, "wait_seconds": 0, "lease_id": id});
                let sent = send(&self.router, post, path, credential, &body).await;
                understood(sent, |answer: LeaseAnswer| Answer::Lease(answer.lease.map(leased)))
            }
            Call::Renew(id) => {
                let path = format!("/v1/leases/{id}/renew");
                let sent = send(&self.router, post, path, credential, &json!({})).await;
                understood(sent, |renewed: Renewed| Answer::Renewed(renewed.deadline))
            }
            Call::Release(id) => {
                let path = format!("/v1/leases/{id}/release");
                let sent = send(&self.router, post, path, credential, &json!({})).await;
                understood(sent, |(): ()| Answer::Released)
            }
            Call::Beat(id) => {
                let path = format!("/v1/agents/{agent_id}/heartbeat");
                let beat = Heartbeat { leases: vec![*id], ..Heartbeat::default() };
                let sent = send(&self.router, Method::PUT, path, credential, &beat).await;
                let is_alive = |orders: Orders| !orders.cancelled_leases.contains(id);
                understood(sent, |orders| Answer::Alive(is_alive(orders)))
            }
            Call::Results(reports) => {
                let measurements = reports.iter().map(|report| measured(AGENTS[agent], report));
                let body = Results { measurements: measurements.collect(), ..Results::default() };
                let path = "/v1/results".to_owned();
                let sent = send(&self.router, post, path, credential, &body).await;
                understood(sent, |answer: ResultsAnswer| Answer::Stored(answer.refused))
            }
            Call::Ask { keys, remeasure, idempotency } => {
                self.ask(agent, keys, *remeasure, *idempotency).await
            }
        }
    }

    async fn ask(&self, agent: usize, keys: &[usize], remeasure: bool, idempotency: u32) -> Answer {
        let keys: Vec<&str> = keys.iter().map(|&key| KEYS[key]).collect();
        let body = json!({
            "hardware_id": self.template.agents[agent].hardware_id,
            "definition": {"name": "simulated", "keys": keys},
            "remeasure": remeasure,
        });
        let request = Request::builder()
            .method(Method::POST)
            .uri("/v1/requests")
            .header("authorization", format!("Bearer {}", self.template.researcher))
            .header("content-type", "application/json")
            .header("idempotency-key", idempotency.to_string());
        let sent = answer(&self.router, request, serde_json::to_vec(&body).unwrap()).await;
        let is_new = sent.0 == StatusCode::CREATED;
        understood(sent, |status: RequestStatus| Answer::Asked(status.id, is_new))
    }
}

fn database(dir: &TempDir, start: u32) -> PathBuf {
    dir.path().join(start.to_string()).join(DATABASE)
}

fn understood<T: DeserializeOwned>(
    (status, text): (StatusCode, String),
    answer: impl FnOnce(T) -> Answer,
) -> Answer {
    if status == StatusCode::CONFLICT {
        return Answer::Lost;
    }
    let text = if text.is_empty() { "null".to_owned() } else { text };
    match serde_json::from_str(&text) {
        Ok(value) if status.is_success() => answer(value),
        _ => Answer::Trouble(status.as_u16(), text),
    }
}

fn leased(lease: latlas_shared::api::Lease) -> Leased {
    let index = |work: &TaskWork| {
        let TaskWork::Op { key, .. } = work else { return None };
        KEYS.iter().position(|known| *known == key.to_string())
    };
    let tasks =
        lease.tasks.iter().map(|task| (task.id, index(&task.work).unwrap(), task.generation));
    Leased { id: lease.id, deadline: lease.deadline, tasks: tasks.collect() }
}

fn measured(memory_gib: u64, report: &Report) -> Measurement {
    let key: OpKey = KEYS[report.key].parse().unwrap();
    let digest = Catalog::builtin().op(&key.op).unwrap().digest().clone();
    let observed = Observed {
        id: report.id,
        task: Some(report.task),
        subject: Subject::Op { key, digest },
        // Different numbers, so that it matters which of them a table shows.
        result: match report.has_number {
            true => Ok(10.0 + (report.id.as_u128() % 1000) as f64),
            false if report.of_box => Err(TOO_LARGE.to_owned()),
            false => Err("the agent has no number".to_owned()),
        },
        finished_at: report.finished_at,
    };
    let task_generation = Some(report.generation);
    Measurement { task_generation, ..synthetic::measurement(memory_gib, observed) }
}

impl Coordinator for Real<'_> {
    async fn call(
        &mut self,
        agent: usize,
        call: &Call,
        now: Timestamp,
        cut: Option<u32>,
    ) -> Option<Answer> {
        self.now.store(now.as_microsecond(), Ordering::Relaxed);
        let answer = self.answer(agent, call);
        let Some(mut polls) = cut else { return Some(answer.await) };
        let mut answer = pin!(answer);
        std::future::poll_fn(|context| {
            if polls == 0 {
                return Poll::Ready(());
            }
            polls -= 1;
            answer.as_mut().poll(context).map(|_| ())
        })
        .await;
        None
    }

    async fn sweep(&mut self, now: Timestamp) {
        self.store.sweep(now).await.unwrap();
        self.store.derive().await.unwrap();
    }

    async fn restart(&mut self, now: Timestamp) {
        self.now.store(now.as_microsecond(), Ordering::Relaxed);
        let old = database(&self.dir, self.start);
        self.start += 1;
        let new = database(&self.dir, self.start);
        fs::create_dir(new.parent().unwrap()).unwrap();
        // A dead process leaves only the files that exist now.
        for end in ["", "-wal"] {
            let file = |path: &Path| PathBuf::from(format!("{}{end}", path.display()));
            if file(&old).exists() {
                fs::copy(file(&old), file(&new)).unwrap();
            }
        }
        (self.store, self.router) = open(&new, &self.now).await;
        self.store.resume(now).await.unwrap();
    }

    async fn books(&mut self) -> Books {
        // As for every reader of tables.
        self.store.derive().await.unwrap();
        Books::read(&database(&self.dir, self.start)).await.unwrap()
    }

    async fn rebuilt(&mut self) -> Books {
        self.store.rebuild().await.unwrap();
        self.books().await
    }
}
