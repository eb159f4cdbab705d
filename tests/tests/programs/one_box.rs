//! A box is itself whatever the farm's address and whatever becomes of its state directory, with the real
//! programs.

use std::fs;
use std::process::Command;

use latlas_tests::{RealFarm, hardware_id, run};
use serde_json::Value;

/// What the agent has kept of its enrolment.
fn identity(farm: &RealFarm) -> Value {
    serde_json::from_str(&fs::read_to_string(farm.state().join("identity.json")).unwrap()).unwrap()
}

/// The farm's agents.
fn agents(farm: &RealFarm) -> Vec<Value> {
    let out = farm.host(&["agents", "--json"]).ok();
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// An agent of this farm at another address, without a token.
fn at(farm: &RealFarm, url: &str) -> Command {
    let mut command = farm.agent_command();
    command.env_remove("LATLAS_ENROLL_TOKEN").args(["--once", "--box-id", "a box of this test"]);
    let args: Vec<String> =
        command.get_args().map(|arg| arg.to_string_lossy().replace(&farm.url, url)).collect();
    let mut moved = Command::new(command.get_program());
    moved.args(args).env_remove("LATLAS_ENROLL_TOKEN");
    moved
}

#[test]
fn a_farm_may_move_and_a_box_may_lose_its_state() {
    let farm = RealFarm::start();
    let enrol = |farm: &RealFarm| {
        run(farm.agent_command().args(["--once", "--box-id", "a box of this test"]))
    };
    enrol(&farm).ok();
    let first = identity(&farm);
    let id = first["agent_id"].as_str().unwrap();
    farm.host(&["quarantine", id, "--reason", "fan broken"]).ok();

    // Another name for the same farm: the same agent, and what an admin has decided stays.
    let moved = farm.url.replace("127.0.0.1", "localhost");
    let said = run(&mut at(&farm, &moved));
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert!(said.stderr.contains("in quarantine: fan broken"), "{}", said.stderr);
    let second = identity(&farm);
    for kept in ["farm_id", "agent_id", "credential"] {
        assert_eq!(first[kept], second[kept]);
    }
    assert!(second["coordinator"].as_str().unwrap().starts_with(&moved), "{second}");

    // Without its state it needs a token, and is the agent that it was.
    fs::remove_dir_all(farm.state()).unwrap();
    let said = run(&mut at(&farm, &farm.url)).fails(1);
    assert!(said.contains("is not enrolled with") && said.contains("--enroll-token"), "{said}");
    let said = enrol(&farm);
    assert!(said.stderr.contains("in quarantine: fan broken"), "{}", said.stderr);
    assert_eq!(identity(&farm)["agent_id"], first["agent_id"]);
    let known = agents(&farm);
    assert_eq!(known.len(), 1, "{known:?}");
    assert_eq!(known[0]["state"], "quarantined");
    assert_eq!(known[0]["hardware_id"], hardware_id());
    assert!(known[0]["clock_ahead_seconds"].as_f64().unwrap().abs() < 60.0, "{known:?}");

    // Another farm at the address of the old one.
    let other = RealFarm::start();
    let said = run(&mut at(&farm, &other.url)).fails(1);
    assert!(said.contains("is another farm") && said.contains("--enroll-token"), "{said}");
    assert_eq!(identity(&farm)["agent_id"], first["agent_id"], "nothing is lost by the mistake");
    assert!(agents(&other).is_empty());
}
