//! The fault suite in its long form; `scripts/bench faults` runs it.

#![expect(clippy::unwrap_used, reason = "in a test, whatever is missing ends it")]

use std::process::ExitCode;
use std::time::Duration;

use latlas_tests::faults::{Plan, Tally, run};

fn main() -> ExitCode {
    let argument = |name: &str, default: u64| {
        let mut arguments = std::env::args().skip_while(|argument| argument != name).skip(1);
        arguments.next().map_or(default, |value| value.parse().expect("a whole number"))
    };
    let plan = Plan {
        seed: argument("--seed", 1),
        chaos: Duration::from_secs(argument("--seconds", 150)),
        calm: Duration::from_secs(240),
        partition: Duration::from_secs(60),
        real: 2,
        real_keys: 12,
        simulated: 3,
        simulated_keys: 3000,
        lease_seconds: 15,
    };
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    println!("seed {}", plan.seed);
    let tally = runtime.block_on(run(&plan, dir.path()));
    report(&tally)
}

/// Prints the tally and one line per figure; success only if all are ok.
fn report(tally: &Tally) -> ExitCode {
    let Tally { done, failed, measurements, acknowledged, copies, recovery, .. } = tally;
    let [coordinator, agents, workers] = tally.kills;
    println!("{done} tasks done, {failed} failed with a reason");
    println!("{measurements} measurements stored, {acknowledged} seen to be acknowledged");
    println!("kill -9: coordinator {coordinator}, agents {agents}, workers {workers}");
    println!("network: {:?}", tally.network);
    println!(
        "{copies} copies of the database opened; everybody finished {recovery:.1?} after the faults"
    );
    for broken in &tally.broken {
        println!("broken: {broken}");
    }
    for said in &tally.gave_up {
        println!("an agent ended on its own: {said}");
    }
    let mut all_hold = true;
    let mut figure = |name: &str, value: usize, bar: String, holds: bool| {
        all_hold &= holds;
        println!("figure {name} {value} {bar} {}", if holds { "ok" } else { "short" });
    };
    figure("broken_invariants", tally.broken.len(), "<=0".into(), tally.broken.is_empty());
    figure("agents_that_gave_up", tally.gave_up.len(), "<=0".into(), tally.gave_up.is_empty());
    figure("tasks_over", done + failed, ">=2000".into(), done + failed >= 2000);
    let kills: usize = tally.kills.iter().sum();
    figure("kills", kills, ">=20".into(), kills >= 20);
    figure("database_copies", *copies, ">=20".into(), *copies >= 20);
    if all_hold { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
