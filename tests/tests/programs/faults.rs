//! The fault suite in its short form: real agents and simulated ones, the real coordinator, kill -9, and a
//! network that fails. `scripts/bench faults` is the long one.

use std::time::Duration;

use latlas_tests::faults::{Plan, run};

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_whatever_is_killed() {
    let plan = Plan {
        seed: 1,
        chaos: Duration::from_secs(7),
        // Far more than it takes, on a machine that may be busy.
        calm: Duration::from_secs(900),
        partition: Duration::from_secs(1),
        real: 1,
        real_keys: 2,
        simulated: 2,
        simulated_keys: 150,
        lease_seconds: 12,
    };
    let dir = tempfile::tempdir().unwrap();
    let tally = run(&plan, dir.path()).await;
    println!("{tally:#?}");
    assert!(tally.broken.is_empty(), "{:#?}", tally.broken);
    assert!(tally.gave_up.is_empty(), "{:#?}", tally.gave_up);
    assert!(tally.done > tally.failed && tally.copies > 0, "{tally:#?}");
}
