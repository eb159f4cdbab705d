//! The event loop, one event after the other, with the checks on the way.

use std::collections::{BTreeMap, BTreeSet};

use super::agent::{Agent, Next, Wish};
use super::network::Network;
use super::{AGENTS, Answer, Call, Coordinator, KEYS, Millis, Watch, clock};
use crate::invariants::{self, Ledger};
use latlas_coordinator::rules::lease::{Policy, deadline};

/// How long faults are injected.
const CHAOS: Millis = 200_000;
/// How long all agents have to finish afterwards.
const CALM: Millis = 4 * 3_600_000;
/// How long an agent waits for an answer.
const TIMEOUT: Millis = 15_000;
/// How often a coordinator ends expired leases.
const SWEEP: Millis = 5_000;

/// The result of a run.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Violated invariants, as sentences.
    pub broken: Vec<String>,
    /// Numbers of done and of failed tasks.
    pub tasks: (usize, usize),
    /// Calls that were answered.
    pub calls: usize,
    /// Crashes of agents and of the coordinator.
    pub crashes: usize,
    /// Calls whose caller did not wait for the answer.
    pub hung_up: usize,
}

#[derive(Debug)]
enum Event {
    /// A message to the coordinator arrives.
    Arrives {
        from: usize,
        start: u32,
        id: u64,
        call: Call,
    },
    /// An answer arrives.
    Answered {
        to: usize,
        start: u32,
        id: u64,
        call: Call,
        answer: Answer,
    },
    /// The time-out of an agent.
    Timeout {
        agent: usize,
        start: u32,
        id: u64,
    },
    /// An agent's own action.
    Acts {
        agent: usize,
        start: u32,
        next: Next,
    },
    /// A researcher makes a request; repeated until there is an answer.
    Asks {
        call: Call,
    },
    Crash {
        agent: usize,
    },
    Comeback {
        agent: usize,
    },
    /// The coordinator dies, and restarts after this time.
    CoordinatorDies {
        away: Millis,
    },
    CoordinatorStarts,
    /// The coordinator's clock is set.
    ClockSet {
        offset: Millis,
    },
    Sweep,
    /// Faults end, and everything that is down comes back.
    Calm,
    /// Checks whether everything is finished.
    Look,
}

struct World<'a, C> {
    coordinator: &'a mut C,
    rng: fastrand::Rng,
    /// A separate generator, so that the rest of a seed does not depend on it.
    hang_ups: fastrand::Rng,
    now: Millis,
    /// The offset of the coordinator's clock.
    offset: Millis,
    up: bool,
    network: Network,
    agents: Vec<Agent>,
    events: BTreeMap<(Millis, u64), Event>,
    counter: u64,
    asked: BTreeSet<u32>,
    watch: Watch,
    ledger: Ledger,
    calm: bool,
    outcome: Outcome,
}

/// Runs a farm with one seed.
pub async fn run<C: Coordinator>(coordinator: &mut C, seed: u64) -> Outcome {
    let mut world = World::new(coordinator, seed);
    while let Some(((at, _), event)) = world.events.pop_first() {
        world.now = at;
        if world.happens(event).await {
            break;
        }
    }
    world.look_back().await;
    world.outcome
}

impl<'a, C: Coordinator> World<'a, C> {
    fn new(coordinator: &'a mut C, seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let network = Network::draw(&mut rng);
        // Most clocks are off by less than an hour, and some by days.
        let off = |rng: &mut fastrand::Rng| {
            let most = if rng.f64() < 0.1 { 5 * 86_400_000 } else { 3_600_000 };
            rng.i64(-most..most)
        };
        let agents = AGENTS.iter().map(|_| Agent::new(off(&mut rng), rng.fork())).collect();
        let mut world = World {
            coordinator,
            rng,
            hang_ups: fastrand::Rng::with_seed(!seed),
            now: 0,
            offset: 0,
            up: true,
            network,
            agents,
            events: BTreeMap::new(),
            counter: 0,
            asked: BTreeSet::new(),
            watch: Watch::default(),
            ledger: Ledger { made: Some(BTreeSet::new()), ..Ledger::default() },
            calm: false,
            outcome: Outcome::default(),
        };
        world.plan();
        world
    }

    /// Plans all faults and requests.
    fn plan(&mut self) {
        for agent in 0..self.agents.len() {
            let at = self.rng.i64(0..5_000);
            self.at(at, Event::Acts { agent, start: 0, next: Next::Look });
        }
        for idempotency in 0..self.rng.u32(2..5) {
            let keys = (0..KEYS.len()).filter(|_| self.rng.bool()).collect::<Vec<_>>();
            let keys = if keys.is_empty() { vec![0] } else { keys };
            let remeasure = idempotency > 0 && self.rng.f64() < 0.4;
            let at = if idempotency == 0 { 0 } else { self.rng.i64(0..CHAOS) };
            self.at(at, Event::Asks { call: Call::Ask { keys, remeasure, idempotency } });
        }
        for _ in 0..self.rng.usize(0..5) {
            let agent = self.rng.usize(0..self.agents.len());
            let at = self.rng.i64(0..CHAOS);
            self.at(at, Event::Crash { agent });
        }
        for _ in 0..self.rng.usize(0..3) {
            let (at, away) = (self.rng.i64(0..CHAOS), self.rng.i64(100..100_000));
            self.at(at, Event::CoordinatorDies { away });
        }
        for _ in 0..self.rng.usize(0..3) {
            let most = if self.rng.f64() < 0.1 { 400 * 86_400_000 } else { 2 * 3_600_000 };
            let (at, offset) = (self.rng.i64(0..CHAOS), self.rng.i64(-most..most));
            self.at(at, Event::ClockSet { offset });
        }
        self.at(0, Event::Sweep);
        self.at(CHAOS, Event::Calm);
    }

    fn at(&mut self, at: Millis, event: Event) {
        self.counter += 1;
        self.events.insert((at, self.counter), event);
    }

    fn after(&mut self, delay: Millis, event: Event) {
        self.at(self.now + delay, event);
    }

    fn coordinator_time(&self) -> jiff::Timestamp {
        clock(self.now, self.offset)
    }

    /// Handles an event; true if the run is over.
    async fn happens(&mut self, event: Event) -> bool {
        match event {
            Event::Arrives { from, start, id, call } => self.arrives(from, start, id, call).await,
            Event::Answered { to, start, id, call, answer } => {
                if self.agents[to].start == start {
                    let wishes = self.agents[to].take(id, &call, &answer, &mut self.rng);
                    self.grant(to, wishes);
                }
            }
            Event::Timeout { agent, start, id } if self.agents[agent].start == start => {
                let wishes = self.agents[agent].timeout(id);
                self.grant(agent, wishes);
            }
            Event::Acts { agent, start, next } if self.agents[agent].start == start => {
                self.acts(agent, next);
            }
            Event::Timeout { .. } | Event::Acts { .. } => {}
            Event::Asks { call } => self.asks(call).await,
            Event::Crash { agent } => self.crash(agent),
            Event::Comeback { agent } => self.comeback(agent),
            Event::CoordinatorDies { away } if self.up && !self.calm => self.dies(away),
            Event::CoordinatorDies { .. } => {}
            Event::CoordinatorStarts => self.starts().await,
            Event::ClockSet { offset } => {
                self.offset = offset;
                let now = self.coordinator_time();
                self.watch.clock_set(deadline(now, &Policy::default()));
            }
            Event::Sweep => {
                if self.up {
                    let now = self.coordinator_time();
                    self.coordinator.sweep(now).await;
                    self.watch.swept(now);
                }
                self.after(SWEEP, Event::Sweep);
            }
            Event::Calm => self.calms_down(),
            Event::Look => return self.is_over().await,
        }
        false
    }

    async fn arrives(&mut self, from: usize, start: u32, id: u64, call: Call) {
        if !self.up {
            return;
        }
        // In some calls the coordinator dies during the call.
        let cut = (!self.calm && self.rng.f64() < 0.004).then(|| self.rng.u32(0..8));
        let now = self.coordinator_time();
        // More often the caller disconnects during the call. Then the coordinator continues.
        let hangs_up = !self.calm && cut.is_none() && self.hang_ups.f64() < 0.02;
        let dropped = if hangs_up { Some(self.hang_ups.u32(0..40)) } else { cut };
        let Some(answer) = self.coordinator.call(from, &call, now, dropped).await else {
            self.watch.cut(&call);
            self.unseen(&call);
            if hangs_up {
                self.outcome.hung_up += 1;
                return;
            }
            let away = self.rng.i64(100..20_000);
            self.dies(away);
            return;
        };
        self.outcome.calls += 1;
        self.note(from, &call, &answer);
        for delay in self.network.deliver(&mut self.rng) {
            let (call, answer) = (call.clone(), answer.clone());
            self.after(delay, Event::Answered { to: from, start, id, call, answer });
        }
    }

    /// Records an answer of the coordinator.
    fn note(&mut self, agent: usize, call: &Call, answer: &Answer) {
        let now = self.coordinator_time();
        self.watch.answered(agent, call, answer, now);
        match (call, answer) {
            (Call::Results(reports), Answer::Stored(refused)) => {
                let taken = reports.iter().filter(|report| !refused.contains_key(&report.id));
                self.ledger.acknowledged.extend(taken.map(|report| report.id));
            }
            (_, Answer::Lease(Some(lease))) => {
                for (task, ..) in &lease.tasks {
                    *self.ledger.handed_out.entry(*task).or_default() += 1;
                }
            }
            _ => {}
        }
    }

    /// A call may have been committed without anybody knowing.
    fn unseen(&mut self, call: &Call) {
        if matches!(call, Call::Lease(_)) {
            // Task numbers are small here.
            for task in 0..100 {
                *self.ledger.handed_out.entry(task).or_default() += 1;
            }
        }
    }

    fn acts(&mut self, agent: usize, next: Next) {
        let wishes = match next {
            Next::Look => self.agents[agent].look(),
            Next::Keep => self.agents[agent].keep(),
            Next::Measured => {
                let finished_at = clock(self.now, self.agents[agent].offset);
                let before = self.agents[agent].last_measured();
                let wishes = self.agents[agent].measured(&mut self.rng, finished_at);
                let made = self.agents[agent].last_measured().filter(|id| Some(*id) != before);
                self.ledger.made.get_or_insert_default().extend(made);
                wishes
            }
        };
        self.grant(agent, wishes);
    }

    fn grant(&mut self, agent: usize, wishes: Vec<Wish>) {
        let start = self.agents[agent].start;
        for wish in wishes {
            match wish {
                Wish::Send(call) => {
                    let id = self.send(agent, call.clone());
                    self.agents[agent].sent(id, call);
                    self.after(TIMEOUT, Event::Timeout { agent, start, id });
                }
                Wish::Post(call) => {
                    self.send(agent, call);
                }
                Wish::Wake(delay, next) => self.after(delay, Event::Acts { agent, start, next }),
                Wish::Crash => self.crash(agent),
            }
        }
    }

    fn send(&mut self, from: usize, call: Call) -> u64 {
        self.counter += 1;
        let (id, start) = (self.counter, self.agents[from].start);
        for delay in self.network.deliver(&mut self.rng) {
            self.after(delay, Event::Arrives { from, start, id, call: call.clone() });
        }
        id
    }

    /// The researcher's network has faults too, so he repeats the request until it is answered, and it may arrive
    /// twice.
    async fn asks(&mut self, call: Call) {
        let Call::Ask { idempotency, .. } = call else { return };
        let times = self.network.deliver(&mut self.rng).len();
        let class = idempotency as usize % self.agents.len();
        let mut is_answered = false;
        for _ in 0..times {
            if !self.up {
                break;
            }
            let now = self.coordinator_time();
            if let Some(answer) = self.coordinator.call(class, &call, now, None).await {
                self.note(class, &call, &answer);
                self.asked.insert(idempotency);
                is_answered = !self.network.deliver(&mut self.rng).is_empty();
            }
        }
        if !is_answered {
            self.after(3_000, Event::Asks { call });
        }
    }

    fn crash(&mut self, agent: usize) {
        if !self.agents[agent].up {
            return;
        }
        self.outcome.crashes += 1;
        self.agents[agent].crash();
        let away = self.rng.i64(1_000..90_000);
        self.after(away, Event::Comeback { agent });
    }

    fn comeback(&mut self, agent: usize) {
        if !self.agents[agent].up {
            self.agents[agent].up = true;
            let start = self.agents[agent].start;
            self.after(0, Event::Acts { agent, start, next: Next::Look });
        }
    }

    fn dies(&mut self, away: Millis) {
        self.up = false;
        self.outcome.crashes += 1;
        self.after(away, Event::CoordinatorStarts);
    }

    async fn starts(&mut self) {
        let now = self.coordinator_time();
        self.coordinator.restart(now).await;
        self.up = true;
        let books = self.coordinator.books().await;
        let cap = Policy::default().max_attempts;
        self.outcome.broken.extend(invariants::always(&books, &self.ledger, cap));
    }

    fn calms_down(&mut self) {
        self.calm = true;
        self.network = Network::good();
        for agent in 0..self.agents.len() {
            self.comeback(agent);
        }
        self.after(30_000, Event::Look);
    }

    async fn is_over(&mut self) -> bool {
        let books = self.coordinator.books().await;
        let is_quiet = self.agents.iter().all(Agent::is_empty);
        let late = self.now > CHAOS + CALM;
        if late || (is_quiet && books.open_tasks() == 0 && books.leases == 0) {
            return true;
        }
        self.after(30_000, Event::Look);
        false
    }

    /// Collects the results.
    async fn look_back(&mut self) {
        self.ledger.refused = self.agents.iter().flat_map(|agent| agent.refused.clone()).collect();
        self.ledger.requests = Some(self.asked.len());
        let books = self.coordinator.books().await;
        let cap = Policy::default().max_attempts;
        let broken = &mut self.outcome.broken;
        broken.append(&mut self.watch.broken);
        broken.extend(invariants::always(&books, &self.ledger, cap));
        broken.extend(invariants::finally(&books, &self.ledger));
        broken.extend(invariants::rebuilt(&books, &self.coordinator.rebuilt().await));
        self.outcome.tasks = (books.count("done"), books.count("failed"));
    }
}
