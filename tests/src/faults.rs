//! The fault suite: the real programs, killed at random moments behind a failing network, and the invariants that must
//! hold afterwards.

mod processes;
mod simulated;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use latlas_coordinator::rules::lease::Policy;
use latlas_coordinator::store::Store;
use tokio::time::sleep;
use uuid::Uuid;

use crate::invariants::{self, Books, Ledger};
use crate::proxy::Proxy;
use processes::{Coordinator, RealBox};

/// The parameters of a run of the suite.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The seed of all random choices.
    pub seed: u64,
    /// How long faults are injected.
    pub chaos: Duration,
    /// How long all agents have to finish afterwards.
    pub calm: Duration,
    /// How long one partition of the network lasts.
    pub partition: Duration,
    /// Real agents under each of two run configs, which are two tables.
    pub real: usize,
    /// Keys for each of these.
    pub real_keys: usize,
    /// Simulated agents of each of two classes.
    pub simulated: usize,
    /// Keys for each of these.
    pub simulated_keys: usize,
    /// How long a lease lasts, in seconds.
    pub lease_seconds: u32,
}

/// The result of a run.
#[derive(Debug, Default)]
pub struct Tally {
    /// Violated invariants.
    pub broken: Vec<String>,
    /// Tasks that were done.
    pub done: usize,
    /// Tasks that failed with a reason.
    pub failed: usize,
    /// Stored measurements of real and simulated agents.
    pub measurements: usize,
    /// Measurements that the coordinator has acknowledged to an agent that records it.
    pub acknowledged: usize,
    /// kill -9 of the coordinator, of agents, and of workers.
    pub kills: [usize; 3],
    /// Real agents that ended without being killed.
    pub gave_up: Vec<String>,
    /// Copies of the database, taken during work, that were opened.
    pub copies: usize,
    /// How often each network fault occurred, by name.
    pub network: Vec<(&'static str, u64)>,
    /// How long all agents took to finish after the faults.
    pub recovery: Duration,
}

/// What agents record during the run.
type Record = Arc<Mutex<Ledger>>;

/// The files on disk at one moment, and the measurements acknowledged by then.
struct Copy {
    database: PathBuf,
    acknowledged: BTreeSet<Uuid>,
}

struct Suite<'a> {
    plan: &'a Plan,
    dir: &'a Path,
    rng: fastrand::Rng,
    record: Record,
    coordinator: Coordinator,
    proxy: Proxy,
    boxes: Vec<RealBox>,
    copies: Vec<Copy>,
    tally: Tally,
}

/// Runs the suite in a folder.
pub async fn run(plan: &Plan, dir: &Path) -> Tally {
    let mut rng = fastrand::Rng::with_seed(plan.seed);
    let record = Record::default();
    record.lock().unwrap().made = Some(BTreeSet::new());
    let coordinator = Coordinator::start(&dir.join("data"), plan.lease_seconds);
    let proxy = Proxy::start(coordinator.address, rng.u64(..)).await.unwrap();
    let boxes = RealBox::start_all(plan, dir, &proxy, &coordinator).await;
    let crowd = simulated::start(plan, &proxy, &coordinator, &record, &mut rng).await;
    record.lock().unwrap().requests = Some(coordinator.ask(plan, &boxes).await);
    let tally = Tally::default();
    let copies = Vec::new();
    let mut suite = Suite { plan, dir, rng, record, coordinator, proxy, boxes, copies, tally };
    suite.chaos().await;
    suite.calm().await;
    crowd.abort();
    suite.look_back().await;
    suite.tally
}

impl Suite<'_> {
    /// Injects faults.
    async fn chaos(&mut self) {
        self.proxy.set_faulty(true);
        let start = Instant::now();
        let away = self.plan.chaos / 2..self.plan.chaos / 2 + self.plan.partition;
        while start.elapsed() < self.plan.chaos.max(away.end) {
            sleep(Duration::from_millis(self.rng.u64(50..400))).await;
            self.proxy.set_away(away.contains(&start.elapsed()));
            self.watch_boxes();
            match self.rng.u32(0..24) {
                0..2 => self.kill_coordinator().await,
                2..8 => self.copy(),
                8..10 => {
                    let each = self.rng.choice(&mut self.boxes);
                    self.tally.kills[1] += usize::from(each.is_some_and(RealBox::kill));
                }
                10..12 => {
                    let each = self.rng.choice(&mut self.boxes);
                    self.tally.kills[2] += each.map_or(0, |each| each.kill_workers());
                }
                _ => {}
            }
        }
        self.proxy.set_away(false);
        self.proxy.set_faulty(false);
    }

    /// Reads the agents' spools, and restarts killed agents.
    fn watch_boxes(&mut self) {
        for each in &mut self.boxes {
            each.look();
            if let Some(said) = each.restart(&mut self.rng) {
                self.tally.gave_up.push(said);
            }
        }
    }

    async fn kill_coordinator(&mut self) {
        self.tally.kills[0] += 1;
        let acknowledged = self.record.lock().unwrap().acknowledged.clone();
        self.coordinator.kill();
        let database = self.coordinator.copy_files(self.dir, self.copies.len());
        self.copies.push(Copy { database, acknowledged });
        sleep(Duration::from_millis(self.rng.u64(0..1_000))).await;
        self.coordinator.restart();
    }

    /// Stops the coordinator at an arbitrary moment, copies its files on disk, and lets it continue. Half of the copies
    /// end with a truncated write.
    fn copy(&mut self) {
        let acknowledged = self.record.lock().unwrap().acknowledged.clone();
        self.coordinator.signal("-STOP");
        let database = self.coordinator.copy_files(self.dir, self.copies.len());
        self.coordinator.signal("-CONT");
        if self.rng.bool() {
            let torn: Vec<u8> = (0..self.rng.usize(1..9_000)).map(|_| self.rng.u8(..)).collect();
            processes::append(&database.with_extension("db-wal"), &torn);
        }
        self.copies.push(Copy { database, acknowledged });
    }

    /// Gives all agents the time to finish.
    async fn calm(&mut self) {
        let start = Instant::now();
        let database = self.coordinator.database();
        while start.elapsed() < self.plan.calm {
            self.watch_boxes();
            let books = Books::read(&database).await.unwrap();
            let quiet = self.boxes.iter().all(RealBox::is_empty) && self.crowd_is_quiet(&books);
            if books.open_tasks() == 0 && books.leases == 0 && quiet {
                break;
            }
            sleep(Duration::from_millis(250)).await;
        }
        self.tally.recovery = start.elapsed();
    }

    fn crowd_is_quiet(&self, books: &Books) -> bool {
        let ledger = self.record.lock().unwrap();
        let stored: BTreeSet<&Uuid> = books.measurements.iter().collect();
        let known = |id: &Uuid| stored.contains(id) || ledger.refused.contains(id);
        ledger.made.iter().flatten().all(known)
    }

    /// Collects the results.
    async fn look_back(&mut self) {
        self.boxes.iter_mut().for_each(RealBox::stop);
        let mut ledger = self.record.lock().unwrap().clone();
        // Measurements of real agents are known only if they were seen in a spool.
        let made = ledger.made.take().unwrap_or_default();
        for each in &self.boxes {
            ledger.refused.extend(each.refused());
            ledger.acknowledged.extend(each.acknowledged());
        }
        let lost = {
            let books = Books::read(&self.coordinator.database()).await.unwrap();
            let stored: BTreeSet<Uuid> = books.measurements.into_iter().collect();
            made.iter().filter(|id| !stored.contains(id) && !ledger.refused.contains(id)).count()
        };
        if lost > 0 {
            self.tally.broken.push(format!("dropped: {lost} measurements are nowhere"));
        }
        if !self.coordinator.stop() {
            self.tally.broken.push("the coordinator did not end as it was asked to".to_owned());
        }
        let database = self.coordinator.database();
        let books = Books::read(&database).await.unwrap();
        let cap = Policy::default().max_attempts;
        self.tally.broken.extend(invariants::always(&books, &ledger, cap));
        self.tally.broken.extend(invariants::finally(&books, &ledger));
        let trusted = invariants::active_agents(&database).await.unwrap();
        let bad = trusted.iter().filter(|name| name.starts_with(simulated::BAD));
        self.tally.broken.extend(bad.map(|name| format!("bad boxes: {name} is still trusted")));
        self.coordinator.rebuild();
        let rebuilt = Books::read(&database).await.unwrap();
        self.tally.broken.extend(invariants::rebuilt(&books, &rebuilt));
        self.open_copies().await;
        self.tally.done = books.count("done");
        self.tally.failed = books.count("failed");
        self.tally.measurements = books.measurements.len();
        self.tally.acknowledged = ledger.acknowledged.len();
        self.tally.network = self.proxy.count();
    }

    /// Each copy opens as in a coordinator, and contains everything acknowledged.
    async fn open_copies(&mut self) {
        for Copy { database, acknowledged } in std::mem::take(&mut self.copies) {
            self.tally.copies += 1;
            match Store::open(&database).await {
                Ok(store) => store.close().await,
                Err(error) => {
                    self.tally.broken.push(format!("copies: {} {error}", database.display()));
                    continue;
                }
            }
            let books = Books::read(&database).await.unwrap();
            let ledger = Ledger { acknowledged, ..Ledger::default() };
            let cap = Policy::default().max_attempts;
            let broken = invariants::always(&books, &ledger, cap);
            self.tally.broken.extend(broken.iter().map(|what| format!("copy: {what}")));
            if let Some(what) = invariants::damage(&database).await {
                self.tally.broken.push(format!("copies: {} {what}", database.display()));
            }
        }
    }
}
