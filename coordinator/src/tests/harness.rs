//! A coordinator in a temporary directory, and the calls that tests make to it.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use axum::Router;
use axum::body::{Body, BodyDataStream};
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use futures_util::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use latlas_shared::api::{
    EnrolRequest, Enrolled, Heartbeat, Lease, LeaseAnswer, RequestStatus, Results, ResultsAnswer,
};
use latlas_shared::{Measurement, testing};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use tempfile::TempDir;
use tower::ServiceExt;
use uuid::Uuid;

use crate::rules::lease::Policy;
use crate::store::{Actor, Agent, NewToken, Store};
use crate::token::{Role, Terms, Token};
use crate::{App, DATABASE, Settings, build_app};

/// Two keys that every test may use.
pub const KEYS: [&str; 2] = ["Conv3x3:n1-h8-w8-i4-o4-s1", "Conv3x3:n1-h8-w8-i4-o8-s2"];

/// A coordinator.
pub struct Farm {
    pub dir: TempDir,
    pub app: App,
    router: Router,
}

/// An enrolled agent.
#[derive(Debug, Clone)]
pub struct EnrolledAgent {
    pub enrolled: Enrolled,
    pub memory_gib: u64,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

/// A call under construction.
pub struct Call<'a> {
    farm: &'a Farm,
    request: axum::http::request::Builder,
    body: Option<String>,
}

impl Farm {
    pub async fn new() -> Farm {
        Farm::with(Settings::default()).await
    }

    pub async fn with(settings: Settings) -> Farm {
        Farm::with_policy(settings, Policy::default()).await
    }

    /// A coordinator whose agents measure canaries.
    pub async fn with_canaries() -> Farm {
        let canary_every = Some(SignedDuration::from_hours(24));
        let policy = Policy { canary_every, ..Policy::default() };
        Farm::with_policy(Settings { open_reads: true, ..Settings::default() }, policy).await
    }

    async fn with_policy(settings: Settings, policy: Policy) -> Farm {
        // Internal errors are only in the log.
        let _ = tracing_subscriber::fmt().with_test_writer().try_init();
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open_with(&dir.path().join(DATABASE), policy).await.unwrap();
        let app = App::new(store, settings);
        Farm { dir, router: build_app(app.clone()), app }
    }

    /// The same after a restart.
    pub async fn again(self) -> Farm {
        self.store().close().await;
        let store = Store::open(&self.dir.path().join(DATABASE)).await.unwrap();
        let app = App::new(store, Settings::default());
        Farm { dir: self.dir, router: build_app(app.clone()), app }
    }

    pub fn store(&self) -> &Store {
        self.app.store()
    }

    pub async fn token(&self, role: Role) -> String {
        let now = Timestamp::now();
        self.token_on(role, Terms::usual(role, now), now).await.1
    }

    /// A token with other terms, or made at another time: its number and the secret.
    pub async fn token_on(&self, role: Role, terms: Terms, made_at: Timestamp) -> (i64, String) {
        let token = Token::generate(role).unwrap();
        let new = NewToken { role, label: format!("a test's {}", role.name()), terms };
        let id = self.store().add_token(&token, &new, &Actor::CommandLine, made_at).await.unwrap();
        (id, token.reveal().to_owned())
    }

    /// Enrols an agent on a box with this much memory, which determines its hardware id.
    pub async fn enrol(&self, name: &str, memory_gib: u64) -> EnrolledAgent {
        let token = self.token(Role::Enroll).await;
        let enrolment = testing::enrolment(name, memory_gib);
        let answer = self.post("/v1/agents").token(&token).json(&enrolment).send().await;
        EnrolledAgent { enrolled: answer.read(StatusCode::CREATED), memory_gib }
    }

    /// Enrols an agent without a call, for tests of the store.
    pub async fn join(&self, enrolment: &EnrolRequest) -> Agent {
        let credential = Token::generate(Role::Agent).unwrap();
        let (store, now) = (self.store(), Timestamp::now());
        store.enrol(enrolment, &credential, &Actor::CommandLine, now).await.unwrap()
    }

    /// Requests [`KEYS`] on the 8 GiB class.
    pub async fn ask_for_keys(&self) -> RequestStatus {
        self.ask_for(&KEYS, false).await
    }

    pub async fn ask_for(&self, keys: &[&str], remeasure: bool) -> RequestStatus {
        let body = json!({
            "hardware_id": testing::fingerprint(8).hardware_id(),
            "definition": {"name": "mine", "keys": keys},
            "remeasure": remeasure,
        });
        let token = self.token(Role::Researcher).await;
        self.post("/v1/requests").token(&token).json(&body).send().await.read(StatusCode::CREATED)
    }

    pub async fn status(&self, request: &RequestStatus) -> RequestStatus {
        self.get(&format!("/v1/requests/{}", request.id)).send().await.read(StatusCode::OK)
    }

    /// Sends measurements of an agent.
    pub async fn report(
        &self,
        agent: &EnrolledAgent,
        measurements: Vec<Measurement>,
    ) -> ResultsAnswer {
        let results = Results { measurements, ..Results::default() };
        let call = self.post("/v1/results").token(&agent.enrolled.credential).json(&results);
        call.send().await.read(StatusCode::OK)
    }

    pub async fn lease(
        &self,
        agent: &EnrolledAgent,
        max_tasks: u32,
        wait_seconds: u32,
    ) -> Option<Lease> {
        let path = format!("/v1/agents/{}/leases", agent.enrolled.agent_id);
        let body = json!({"max_tasks": max_tasks, "wait_seconds": wait_seconds});
        let call = self.post(&path).token(&agent.enrolled.credential).json(&body);
        call.send().await.read::<LeaseAnswer>(StatusCode::OK).lease
    }

    /// The lease with this id, if it exists or there is work for it.
    pub async fn lease_as(&self, agent: &EnrolledAgent, id: Uuid) -> Option<Lease> {
        let path = format!("/v1/agents/{}/leases", agent.enrolled.agent_id);
        let body = json!({"max_tasks": 1, "wait_seconds": 0, "lease_id": id});
        let call = self.post(&path).token(&agent.enrolled.credential).json(&body);
        call.send().await.read::<LeaseAnswer>(StatusCode::OK).lease
    }

    /// Sends a heartbeat of an agent.
    pub async fn beat(&self, agent: &EnrolledAgent, beat: &Heartbeat) -> Answer {
        let path = format!("/v1/agents/{}/heartbeat", agent.enrolled.agent_id);
        self.call(Method::PUT, &path).token(&agent.enrolled.credential).json(beat).send().await
    }

    /// Sets the state of an agent as an admin.
    pub async fn decide(&self, agent: &EnrolledAgent, state: &str, reason: Option<&str>) -> Answer {
        let token = self.token(Role::Admin).await;
        let path = format!("/v1/agents/{}/state", agent.enrolled.agent_id);
        let body = json!({"state": state, "reason": reason});
        self.call(Method::PUT, &path).token(&token).json(&body).send().await
    }

    pub fn get(&self, path: &str) -> Call<'_> {
        self.call(Method::GET, path)
    }

    pub fn post(&self, path: &str) -> Call<'_> {
        self.call(Method::POST, path)
    }

    pub fn call(&self, method: Method, path: &str) -> Call<'_> {
        Call { farm: self, request: Request::builder().method(method).uri(path), body: None }
    }
}

impl EnrolledAgent {
    /// A measurement that this agent could have made.
    pub fn measures(&self, key: &str, micros: f64) -> Measurement {
        let mut measurement = testing::measurement(key, micros);
        measurement.hardware_id = self.enrolled.hardware_id.clone();
        measurement.fingerprint = testing::fingerprint(self.memory_gib).digest();
        measurement
    }

    /// A measurement of a built-in network that this agent could have made.
    pub fn measures_network(&self, name: &str, micros: f64) -> Measurement {
        Measurement {
            hardware_id: self.enrolled.hardware_id.clone(),
            fingerprint: testing::fingerprint(self.memory_gib).digest(),
            ..testing::network_measurement(name, micros)
        }
    }

    /// A measurement that is one minute later.
    pub fn measures_again(&self, key: &str, micros: f64) -> Measurement {
        let mut measurement = self.measures(key, micros);
        measurement.finished_at += SignedDuration::from_mins(1);
        measurement
    }
}

/// A connection to the database, as of another program.
pub async fn reader(path: &Path) -> SqlitePool {
    let options = SqliteConnectOptions::new().filename(path).read_only(true);
    SqlitePool::connect_with(options).await.unwrap()
}

impl Call<'_> {
    pub fn token(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.request = self.request.header(name, value);
        self
    }

    /// Sets the address of the calling connection.
    pub fn from(mut self, address: &str) -> Self {
        let peer: IpAddr = address.parse().unwrap();
        self.request = self.request.extension(ConnectInfo(SocketAddr::from((peer, 49_152))));
        self
    }

    pub fn json(self, body: &impl Serialize) -> Self {
        let mut call = self.header("content-type", "application/json");
        call.body = Some(serde_json::to_string(body).unwrap());
        call
    }

    pub fn text(mut self, body: &str) -> Self {
        self.body = Some(body.to_owned());
        self
    }

    pub async fn send(mut self) -> Answer {
        let body = self.body.take().map_or_else(Body::empty, Body::from);
        self.send_with(body).await
    }

    /// Sends half of the body, and then breaks the connection.
    pub async fn send_half(mut self) -> Answer {
        let mut body = self.body.take().unwrap();
        body.truncate(body.len() / 2);
        let broken = std::io::ErrorKind::ConnectionReset;
        let chunks = [Ok(body), Err(std::io::Error::from(broken))];
        self.send_with(Body::from_stream(futures_util::stream::iter(chunks))).await
    }

    async fn send_with(self, body: Body) -> Answer {
        let request = self.request.body(body).unwrap();
        let response = self.farm.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let body = String::from_utf8_lossy(&body).into_owned();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    /// A streaming answer, to be read event by event.
    pub async fn open(self) -> Events {
        let request = self.request.body(Body::empty()).unwrap();
        let response = self.farm.router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        Events { body: response.into_body().into_data_stream() }
    }
}

/// Server-sent events about a request.
pub struct Events {
    body: BodyDataStream,
}

impl Events {
    /// Name and data of the next event; none when the stream has ended.
    pub async fn next(&mut self) -> Option<(String, RequestStatus)> {
        loop {
            let chunk = self.body.next().await?.unwrap();
            let text = String::from_utf8(chunk.to_vec()).unwrap();
            // A line that begins with a colon keeps the connection alive.
            if text.starts_with(':') {
                continue;
            }
            let (name, data) = text.trim_end().split_once('\n').unwrap();
            let name = name.strip_prefix("event: ").unwrap().to_owned();
            return Some((
                name,
                serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap(),
            ));
        }
    }
}

impl Answer {
    /// The body, after a check of the status.
    pub fn read<T: DeserializeOwned>(&self, status: StatusCode) -> T {
        assert_eq!(self.status, status, "{}", self.body);
        serde_json::from_str(&self.body).unwrap()
    }

    pub fn header(&self, name: header::HeaderName) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Everything that clients rely on, for a snapshot.
    pub fn shown(&self) -> String {
        let mut text = self.status.to_string();
        for name in [
            "content-type",
            "location",
            "cache-control",
            "allow",
            "www-authenticate",
            "retry-after",
        ] {
            if let Some(value) = self.headers.get(name) {
                text += &format!("\n{name}: {}", value.to_str().unwrap());
            }
        }
        match serde_json::from_str::<Value>(&self.body) {
            Ok(json) => text + "\n\n" + &serde_json::to_string_pretty(&json).unwrap(),
            Err(_) => text + "\n\n" + &self.body,
        }
    }
}

/// Compares an answer with its snapshot; ids, times and hashes are replaced.
#[track_caller]
pub fn check(name: &str, answer: &Answer) {
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_snapshot_path("snapshots");
    settings.add_filter(r"latlas_agent_[0-9a-f]{64}", "[credential]");
    settings.add_filter(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "[uuid]");
    settings.add_filter(r"\b[0-9a-f]{32}\b", "[hash]");
    settings.add_filter(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "[time]");
    settings.bind(|| insta::assert_snapshot!(name, answer.shown()));
}

/// A time this many seconds after now.
pub fn later(seconds: i64) -> Timestamp {
    Timestamp::now() + SignedDuration::from_secs(seconds)
}
