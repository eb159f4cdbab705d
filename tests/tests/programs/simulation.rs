//! The protocol of leases under every fault that a seed can think of. The invariants are those of
//! `docs/faults.md`.
//!
//! A seed that fails is printed, and is run alone with `LATLAS_SEED=SEED cargo test -p latlas_tests
//! simulation`.

use std::ops::Range;

use latlas_tests::simulation::router::{Real, Template};
use latlas_tests::simulation::rules::Pure;
use latlas_tests::simulation::{Outcome, run};

/// Seeds for the rules alone.
const RULES: u64 = 4000;
/// Seeds for the whole coordinator.
const ROUTER: u64 = 50;

/// The seeds of a test: so many, or the one that is asked for.
fn seeds(count: u64) -> Range<u64> {
    match std::env::var("LATLAS_SEED") {
        Ok(seed) => {
            let seed = seed.parse().expect("LATLAS_SEED is a number");
            seed..seed + 1
        }
        Err(_) => match std::env::var("LATLAS_SEEDS") {
            Ok(count) => 0..count.parse().expect("LATLAS_SEEDS is a number"),
            Err(_) => 0..count,
        },
    }
}

/// What all runs have come to, and that nothing broke in any.
#[derive(Default)]
struct Tally {
    runs: usize,
    done: usize,
    failed: usize,
    calls: usize,
    crashes: usize,
    hung_up: usize,
}

impl Tally {
    #[track_caller]
    fn add(&mut self, test: &str, seed: u64, outcome: &Outcome) {
        assert!(
            outcome.broken.is_empty(),
            "seed {seed}:\n  {}\nRun it alone: LATLAS_SEED={seed} cargo test -p latlas_tests \
             simulation::{test}",
            outcome.broken.join("\n  ")
        );
        self.runs += 1;
        self.done += outcome.tasks.0;
        self.failed += outcome.tasks.1;
        self.calls += outcome.calls;
        self.crashes += outcome.crashes;
        self.hung_up += outcome.hung_up;
    }

    fn say(&self) {
        println!(
            "{} runs: {} tasks done, {} failed with a reason, {} calls, {} crashes, {} callers hung up",
            self.runs, self.done, self.failed, self.calls, self.crashes, self.hung_up
        );
        // One seed alone may have nothing but bad luck.
        if self.runs > 1 {
            assert!(self.done > self.failed && self.done > self.runs, "most work is done");
            assert!(self.hung_up > self.runs / 10, "some callers hang up");
        }
    }
}

#[test]
fn the_rules_alone() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut tally = Tally::default();
    for seed in seeds(RULES) {
        let outcome = runtime.block_on(run(&mut Pure::default(), seed));
        tally.add("the_rules_alone", seed, &outcome);
    }
    tally.say();
}

#[test]
fn the_whole_coordinator() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let template = runtime.block_on(Template::new());
    let mut tally = Tally::default();
    for seed in seeds(ROUTER) {
        let outcome = runtime.block_on(async {
            let mut coordinator = Real::new(&template).await;
            run(&mut coordinator, seed).await
        });
        tally.add("the_whole_coordinator", seed, &outcome);
    }
    tally.say();
}
