//! Simulated machines, for tests of statistics: in this crate, and in crates that decide when there are enough samples.

use crate::stats::Visit;

/// Pseudorandom numbers, the same in every run.
#[derive(Debug)]
pub struct Chance(fastrand::Rng);

impl Chance {
    /// A separate sequence for each seed.
    pub fn new(seed: u64) -> Chance {
        Chance(fastrand::Rng::with_seed(seed))
    }

    /// Uniform in 0..1.
    pub fn uniform(&mut self) -> f64 {
        self.0.f64()
    }

    /// Uniform between two numbers.
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    /// Standard normal (Box and Muller).
    pub fn normal(&mut self) -> f64 {
        let (a, b) = (1.0 - self.uniform(), self.uniform());
        (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
    }
}

/// The samples of a visit at a position in a run, from 0 at its start to 1 at its end.
pub type Machine = fn(&mut Chance, f64) -> Visit;

/// Kinds of machines, by name.
pub const MACHINES: [(&str, Machine); 6] = [
    ("normal", |chance, _| (0..8).map(|_| 100.0 + 3.0 * chance.normal()).collect()),
    ("lognormal", |chance, _| (0..8).map(|_| 100.0 * (0.2 * chance.normal()).exp()).collect()),
    ("bimodal", |chance, _| {
        let mode = |chance: &mut Chance| if chance.uniform() < 0.4 { 100.0 } else { 140.0 };
        (0..8).map(|_| mode(chance) + chance.normal()).collect()
    }),
    // Each visit has the machine's speed at that moment.
    ("between visits", |chance, _| {
        let slow = 1.0 + 0.3 * chance.uniform();
        (0..8).map(|_| slow * (100.0 + chance.normal())).collect()
    }),
    // A neighbour disturbs whole visits.
    ("neighbour", |chance, _| {
        let slow = if chance.uniform() < 0.3 { 1.8 } else { 1.0 };
        (0..8).map(|_| slow * (100.0 + 2.0 * chance.normal())).collect()
    }),
    ("drifting", |chance, place| {
        let slow = 1.0 + 0.1 * place;
        (0..8).map(|_| slow * (100.0 + 2.0 * chance.normal())).collect()
    }),
];
