//! What `latlas` says of who is there, and what it does to requests and boxes.

use crate::common::farm::FakeCoordinator;
use crate::common::{Desk, SMALL, network_measured, rows_measured};
use latlas_shared::Table;
use serde_json::json;

const ID: &str = "0198c5f2-7c1e-7d2a-9f64-3a1be0c4d7aa";
const OTHER: &str = "0298c5f2-7c1e-7d2a-9f64-3a1be0c4d7aa";

fn desk(farm: &FakeCoordinator) -> Desk {
    let mut desk = Desk::new();
    desk.coordinator = Some(farm.address.clone());
    desk.token = Some("secret-token".to_owned());
    desk
}

fn page(items: &[String]) -> String {
    format!(r#"{{"items": [{}], "next_cursor": null}}"#, items.join(", "))
}

fn request(id: &str, done: u32, rest: &str) -> String {
    format!(
        r#"{{"id": "{id}", "hardware_id": "test-box-2c.cpu", "config": "f32-t1", "space": "quick", "networks": 0,
        "created_at": "2026-01-02T03:04:05Z", "total": 3, "done": {done}, "failed": 0, "running": 0,
        "failures": {{}}, {rest}}}"#
    )
    .replace('\n', " ")
}

const NOBODY: &str = r#""cancelled": null, "unattended": {"boxes": [{"agent_id":
    "0198c5f2-7c1e-7d2a-9f64-3a1be0c4d7a1", "name": "vm", "state": "silent", "since":
    "2026-01-02T03:04:05Z", "reason": "its power ended", "by": null}], "more": 0}"#;
const SOMEBODY: &str = r#""cancelled": null, "unattended": null"#;
const CANCELLED: &str = r#""unattended": null,
    "cancelled": {"at": "2026-01-02T03:04:05Z", "by": "ada", "tasks": 3}"#;

#[test]
fn a_wait_for_nobody_says_so_at_once() {
    let events = format!(
        "data: {}\n\ndata: {}\n\ndata: {}\n\n",
        request(ID, 0, NOBODY),
        request(ID, 0, SOMEBODY),
        request(ID, 3, SOMEBODY)
    );
    let farm = FakeCoordinator::new(&[
        ("POST /v1/requests", "201 Created", &request(ID, 0, NOBODY)),
        (&format!("GET /v1/requests/{ID}/events"), "200", &events),
        (&format!("GET /v1/requests/{ID}"), "200", &request(ID, 0, NOBODY)),
    ]);
    let desk = desk(&farm);
    let ran = desk.run("profile --hardware test-box-2c.cpu --space quick --wait");
    assert_eq!(ran.code, 0, "{}", ran.report());
    let said = "no agent works on it: the only agent of test-box-2c.cpu under f32-t1 takes no tasks now\n  vm \
                (0198c5f2): silent for ";
    // Once, although the first event says the same as the answer.
    assert_eq!(ran.stderr.matches(said).count(), 1, "{}", ran.stderr);
    assert!(ran.stderr.starts_with(said), "{}", ran.stderr);
    assert!(ran.stderr.contains(&format!("`latlas request cancel {ID}`")), "{}", ran.stderr);
    assert!(ran.stderr.contains("an agent takes its tasks again"), "{}", ran.stderr);
    for command in
        ["profile --hardware test-box-2c.cpu --space quick", &format!("request show {ID}")]
    {
        let ran = desk.run(command);
        assert!(ran.stdout.contains(said), "{}", ran.report());
    }
}

#[test]
fn a_request_is_cancelled_by_the_beginning_of_its_id() {
    let both = page(&[request(ID, 1, SOMEBODY), request(OTHER, 3, SOMEBODY)]);
    let farm = FakeCoordinator::new(&[
        ("GET /v1/requests", "200", &both),
        (&format!("POST /v1/requests/{ID}/cancel"), "200", &request(ID, 0, CANCELLED)),
        (&format!("POST /v1/requests/{OTHER}/cancel"), "200", &request(OTHER, 3, SOMEBODY)),
        (&format!("GET /v1/requests/{ID}"), "200", &request(ID, 0, CANCELLED)),
    ]);
    let desk = desk(&farm);
    let ran = desk.run("request cancel 01");
    let said = format!("request {ID} is cancelled by ada ");
    assert!(ran.code == 0 && ran.stdout.starts_with(&said), "{}", ran.report());
    assert!(ran.stdout.ends_with(" ago, with 3 tasks left\n"), "{}", ran.stdout);
    let ran = desk.run(&format!("request cancel {OTHER}"));
    assert!(ran.stdout.contains("has already finished; nothing was cancelled"), "{}", ran.stdout);
    assert_eq!(
        desk.run(&format!("request cancel {ID} --json")).json()[0]["cancelled"]["by"],
        "ada"
    );

    let ran = desk.run("request cancel 0");
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("`0` matches 2 requests"), "{}", ran.stderr);
    assert!(
        ran.stderr.contains(&format!("{OTHER}  quick on test-box-2c.cpu, finished")),
        "{}",
        ran.stderr
    );
    let ran = desk.run("request show 7 --wait");
    assert!(ran.stderr.contains("there is no request `7`"), "{}", ran.stderr);
    // Whoever waits for it hears that it is over, and by whom.
    let ran = desk.run("request show 01 --wait");
    assert_eq!(ran.code, 1, "{}", ran.report());
    assert!(ran.stderr.contains("error: the request was cancelled by ada"), "{}", ran.stderr);
}

#[test]
fn boxes_are_named_labelled_and_removed() {
    let agent = |id: &str, name: &str, labels: &str| {
        format!(
            r#"{{"agent_id": "{id}", "name": "{name}", "hardware_id": "test-box-2c.cpu", "config": "f32-t1",
            "enrolled_at": "2026-01-02T03:04:05Z", "seen_at": "2026-01-02T03:04:05Z", "canary_at": null,
            "state": "quarantined", "reason": "odd", "since": null, "by": "admin", "unfit": null,
            "presence": "silent", "labels": {labels}, "leases": []}}"#
        )
        .replace('\n', " ")
    };
    let (one, other) = (agent(ID, "vm", r#"{"rack": "3"}"#), agent(OTHER, "vm", "{}"));
    let farm = FakeCoordinator::new(&[
        ("GET /v1/agents", "200", &page(&[one.clone(), other])),
        (&format!("PATCH /v1/agents/{ID}"), "200", &one),
        (&format!("DELETE /v1/agents/{ID}"), "204 No Content", ""),
    ]);
    let desk = desk(&farm);
    for (command, body, said) in [
        ("farm name 01 box-7", r#"{"name":"box-7"}"#, format!("{ID} is vm [rack=3]\n")),
        (
            "farm label 01 rack=3 room-",
            r#"{"labels":{"rack":"3","room":null}}"#,
            format!("{ID} is vm [rack=3]\n"),
        ),
        ("farm remove 01", "", format!("{ID} is removed; its measurements stay\n")),
    ] {
        let ran = desk.run(command);
        assert_eq!((ran.code, ran.stdout.as_str()), (0, said.as_str()), "{}", ran.report());
        let asked = farm.requests();
        assert!(asked[asked.len() - 1].ends_with(body), "{}", asked[asked.len() - 1]);
    }
    // Two of one name are told apart, and nothing is done to either.
    let before = farm.requests().len();
    let ran = desk.run("farm remove vm");
    assert_eq!((ran.code, farm.requests().len()), (1, before + 1));
    assert!(ran.stderr.contains("`vm` matches 2 agents"), "{}", ran.stderr);
    let line = format!("{ID}  vm [rack=3] of test-box-2c.cpu, quarantined, silent, last contact ");
    assert!(ran.stderr.contains(&line), "{}", ran.stderr);
    let listed =
        |arguments: &str| desk.run(&format!("farm agents --json {arguments}")).json().len();
    assert_eq!(["", "--label rack=3", "--label rack=4", "--label rack-"].map(listed), [2, 1, 0, 1]);
    assert!(desk.run("farm agents").stdout.contains("quarantined, silent"));
    for wrong in ["farm label 01", "farm label 01 rack", "farm label 01 =3", "farm label 01 rack="]
    {
        assert_eq!(desk.run(wrong).code, 2, "{wrong}");
    }
}

#[test]
fn measured_networks_stand_beside_their_predictions() {
    let desk_alone = Desk::new();
    let lines = rows_measured(&[SMALL]) + &network_measured(SMALL, 250.0).to_string() + "\n";
    desk_alone.put("all.ndjson", lines);
    let built = desk_alone.run("table build all.ndjson");
    assert_eq!(built.code, 0, "{}", built.report());
    let table: Table = serde_json::from_str(&built.stdout).unwrap();
    let predicted =
        table.accuracy.unwrap().networks[0].prediction.clone().unwrap().predicted_micros;

    let farm = FakeCoordinator::new(&[
        ("GET /v1/ops", "200", &page(&[])),
        ("POST /v1/requests", "201 Created", &request(ID, 3, SOMEBODY)),
        ("GET /v1/tables/test-box-2c.cpu?config=f32-t1", "200", &built.stdout),
    ]);
    let desk = desk(&farm);
    desk.put("mine.json", SMALL);
    let profile = "profile --hardware test-box-2c.cpu --network mine.json --wait";
    let ran = desk.run(profile);
    let said = format!("small  250 us measured, {predicted:.0} us predicted\n");
    assert!(ran.code == 0 && ran.stdout.ends_with(&said), "{said}{}", ran.report());
    let ran = desk.run(&format!("{profile} --json"));
    assert_eq!((ran.code, ran.json().len()), (0, 1), "{}", ran.report());
}

/// All of SMALL but its last layer.
const BEGINNING: &str = r#"{"input": {"n": 1, "c": 3, "h": 32, "w": 32}, "layers": [
    {"op": "Conv3x3", "c_out": 16, "stride": 2}, {"op": "MBConv6_3x3", "c_out": 16, "stride": 1}]}"#;

#[test]
fn exactly_the_rows_that_a_prediction_lacks_are_asked_for() {
    let desk_alone = Desk::new();
    // The last op of SMALL is lacking.
    desk_alone.put("all.ndjson", rows_measured(&[BEGINNING]));
    let built = desk_alone.run("table build all.ndjson");
    assert_eq!(built.code, 0, "{}", built.report());
    let farm = FakeCoordinator::new(&[
        ("GET /v1/ops", "200", &page(&[])),
        ("GET /v1/tables/test-box-2c.cpu?format=json", "200", &built.stdout),
        ("POST /v1/requests", "201 Created", &request(ID, 0, SOMEBODY)),
    ]);
    let desk = desk(&farm);
    desk.put("mine.json", SMALL);
    let profile = "profile --hardware test-box-2c.cpu --arch mine.json --missing-rows";
    let body = |command: &str| -> serde_json::Value {
        let ran = desk.run(command);
        assert_eq!(ran.code, 0, "{}", ran.report());
        let asked = farm.requests().pop().unwrap();
        serde_json::from_str(asked.split("\r\n\r\n").nth(1).unwrap()).unwrap()
    };
    let asked = body(profile);
    assert_eq!(asked["definition"]["keys"], json!(["MBConv6_3x3:n1-h16-w16-i16-o24-s2"]));
    assert_eq!(asked["networks"].as_array().unwrap().len(), 1);
    assert!(asked.get("calibrate").is_none() && asked.get("space").is_none(), "{asked}");
    // Networks that calibrate are made of all of its ops.
    let asked = body(&format!("{profile} --calibrate 1"));
    let layers = asked["networks"][1]["layers"].as_array().unwrap();
    assert!(layers.len() >= 4, "{asked}");
    assert_eq!(layers[0]["op"], "Conv3x3", "{asked}");

    desk.put("beginning.json", BEGINNING);
    let asked = body("profile --hardware test-box-2c.cpu --arch beginning.json --missing-rows");
    assert!(asked.get("definition").is_none(), "{asked}");

    for (arguments, said) in [
        ("--missing-rows", "required arguments were not provided"),
        ("--space quick --arch mine.json --missing-rows", "both say which rows to measure"),
        ("--arch mine.json --calibrate 3", "give --space or --missing-rows"),
    ] {
        let ran = desk.run(&format!("profile --hardware test-box-2c.cpu {arguments}"));
        assert_eq!(ran.code, 2, "{}", ran.report());
        assert!(ran.stderr.contains(said), "{}", ran.stderr);
    }
}
