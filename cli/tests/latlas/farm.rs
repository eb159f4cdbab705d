//! The commands that ask a coordinator, against one that says what it was told to say.

use crate::common::farm::{FakeCoordinator, problem_json};
use crate::common::{Desk, GRAPH, SMALL, table_of};
use insta::assert_snapshot;

const ID: &str = "0198c5f2-7c1e-7d2a-9f64-3a1be0c4d7aa";

fn desk(farm: &FakeCoordinator) -> Desk {
    let mut desk = Desk::new();
    desk.coordinator = Some(farm.address.clone());
    desk.token = Some("secret-token".to_owned());
    desk
}

fn page(items: &str) -> String {
    format!(r#"{{"items": [{items}], "next_cursor": null}}"#)
}

/// The state of a request, with failures as JSON.
fn status(done: u32, failed: u32, failures: &str) -> String {
    format!(
        r#"{{"id": "{ID}", "hardware_id": "test-box-2c.cpu", "config": "f32-t1", "space": "quick", "networks": 0,
        "created_at": "2026-01-02T03:04:05Z", "total": 3, "done": {done}, "failed": {failed},
        "running": 1, "failures": {{{failures}}}}}"#
    )
    .replace('\n', " ")
}

/// The farm's address changes from run to run.
fn report(farm: &FakeCoordinator, ran: &crate::common::Ran) -> String {
    ran.report().replace(&farm.address, "http://FARM")
}

#[test]
fn lists_are_printed_for_people_and_for_programs() {
    let table = r#"{"hardware_id": "test-box-2c.cpu", "config": "f32-t1", "version": "ab12",
        "created_at": "2026-01-02T03:04:05Z", "rows": 41}"#;
    let hardware =
        r#"{"hardware_id": "test-box-2c.cpu", "agents": 2, "configs": ["f32-t1", "f32-t2"]}"#;
    let farm = FakeCoordinator::new(&[
        ("GET /v1/tables", "200", &page(table)),
        ("GET /v1/hardware", "200", &page(hardware)),
        ("GET /v1/requests", "200", &page(&status(2, 1, ""))),
    ]);
    let desk = desk(&farm);
    let mut all = String::new();
    for command in ["table list", "hardware list", "request list"] {
        for json in ["", " --json"] {
            let ran = desk.run(&format!("{command}{json}"));
            all.push_str(&format!("latlas {command}{json}\n{}\n", ran.report()));
        }
    }
    assert_snapshot!(all);
    assert!(farm.requests()[0].contains("authorization: Bearer secret-token\r\n"));
}

#[test]
fn the_host_of_a_farm_sees_tokens_and_what_was_changed() {
    let token = |id: u32, rest: &str| {
        format!(r#"{{"id": {id}, "created_at": "2026-01-02T03:04:05Z", "agent_id": null, {rest}}}"#)
    };
    let tokens = [
        token(
            1,
            r#""role": "admin", "label": "grace", "last_used_at": "2026-01-02T04:00:00Z",
            "expires_at": null, "uses_left": null, "revoked_at": null"#,
        ),
        token(
            2,
            r#""role": "enroll", "label": "", "last_used_at": null,
            "expires_at": "2026-01-09T03:04:05Z", "uses_left": 7, "revoked_at": null"#,
        ),
        token(
            3,
            r#""role": "enroll", "label": "rack\u001b[2J", "last_used_at": null, "expires_at": null,
            "uses_left": 0, "revoked_at": null"#,
        ),
    ];
    let revoked = token(
        4,
        r#""role": "agent", "label": "box-1", "last_used_at": "2026-01-02T04:00:00Z",
        "expires_at": null, "uses_left": null, "revoked_at": "2026-01-03T00:00:00Z""#,
    );
    let entry = |id: u32, who: &str, token: &str, what: &str| {
        format!(
            r#"{{"id": {id}, "at": "2026-01-02T03:04:05Z", "who": "{who}", "token_id": {token}, {what}}}"#
        )
    };
    let create = r#""action": "token.create", "subject": "token 2", "detail": {"role": "enroll",
        "label": "", "uses": 7, "expires_at": null}"#;
    let enrol = r#""action": "agent.enrol", "subject": "agent 8a", "detail": {"name": "box-1"}"#;
    let audit = [entry(9, "", "2", enrol), entry(8, "command line", "null", create)];
    let farm = FakeCoordinator::new(&[
        ("GET /v1/tokens?limit=1000", "200", &page(&tokens.join(", "))),
        ("POST /v1/tokens/4/revoke", "200", &revoked),
        ("POST /v1/tokens/5/revoke", "404 No", &problem_json(404, "there is no token 5")),
        ("GET /v1/audit?limit=100", "200", &page(&audit.join(", "))),
        ("GET /v1/audit?limit=2", "200", &page(&audit.join(", "))),
    ]);
    let desk = desk(&farm);
    let mut all = String::new();
    for command in [
        "farm tokens list",
        "farm tokens list --json",
        "farm tokens revoke 4",
        "farm tokens revoke 4 --json",
        "farm tokens revoke 5",
        "farm audit",
        "farm audit --last 2 --json",
    ] {
        all.push_str(&format!("latlas {command}\n{}\n", desk.run(command).report()));
    }
    assert_snapshot!(all);
}

#[test]
fn a_ca_file_that_can_t_be_used_is_named() {
    let mut desk = Desk::new();
    desk.coordinator = Some("https://127.0.0.1:1".to_owned());
    desk.put("text.pem", "no certificate\n");
    for file in ["text.pem", "missing.pem"] {
        let ran = desk.run(&format!("table list --ca-file {file}"));
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
        let start = format!("error: the certificates in {file} cannot be used");
        assert!(ran.stderr.starts_with(&start), "{}", ran.stderr);
    }
}

#[test]
fn a_table_is_downloaded_whole_or_not_at_all() {
    let table = table_of(&[SMALL]);
    let farm = FakeCoordinator::new(&[
        ("GET /v1/tables/test-box-2c.cpu?format=json", "200", &table),
        ("GET /v1/tables/test-box-2c.cpu?config=c1&format=csv", "200", "op_type\nConv3x3\n"),
        ("GET /v1/tables/test-box-2c.cpu/versions/ab12?format=json", "200", &table),
        ("GET /v1/tables/broken.cpu?format=json", "200", "<html>a proxy's page</html>"),
    ]);
    let desk = desk(&farm);
    let ran = desk.run("table get test-box-2c.cpu");
    assert_eq!((ran.code, ran.stdout == table, ran.stderr.as_str()), (0, true, ""));
    let ran = desk.run("table get test-box-2c.cpu --config c1 --format csv");
    assert_eq!(ran.stdout, "op_type\nConv3x3\n");
    assert!(desk.run("table get test-box-2c.cpu --version ab12").stdout == table);

    let ran = desk.run("table get test-box-2c.cpu -o table.json");
    let said = "wrote table.json: 3 rows, version 5f0c2a7be91d4c3a8f6e2d1b0a9c8e7f\n";
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (0, "", said));
    assert_eq!(std::fs::read_to_string(desk.path("table.json")).unwrap(), table);
    let predicted = desk.run_with("predict --table table.json --arch -", SMALL);
    assert_eq!(predicted.code, 0);

    // What fails leaves the old file, and nothing else.
    let ran = desk.run("table get broken.cpu -o table.json");
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    assert_eq!(std::fs::read_to_string(desk.path("table.json")).unwrap(), table);
    assert_eq!(desk.files(), ["table.json"]);
    let ran = desk.run("table get test-box-2c.cpu -o no/such/folder.json");
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr.starts_with("error: no/such/folder.json: it cannot be written: "),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_request_is_made_and_its_id_printed() {
    let farm = FakeCoordinator::new(&[("POST /v1/requests", "201 Created", &status(0, 0, ""))]);
    let desk = desk(&farm);
    let profile = "profile --hardware test-box-2c.cpu --space quick --config c1 --remeasure";
    assert_snapshot!(report(&farm, &desk.run(profile)));
    let body = r#"{"hardware_id":"test-box-2c.cpu","config":"c1","space":"quick","calibrate":5,"remeasure":true}"#;
    assert!(farm.requests()[0].ends_with(body), "{}", farm.requests()[0]);
}

#[test]
fn calibration_networks_need_a_space() {
    let farm = FakeCoordinator::new(&[]);
    let desk = desk(&farm);
    let profile = "profile --hardware test-box-2c.cpu --network demo_conv --calibrate";
    let refused = desk.run(&format!("{profile} 5"));
    assert_eq!(refused.code, 2, "{}", refused.report());
    assert!(refused.stderr.contains("give --space"), "{}", refused.report());
    let refused = desk.run(&format!("{profile} some"));
    assert_eq!(refused.code, 2, "{}", refused.report());
    assert!(refused.stderr.contains("a number of networks, or `none`"), "{}", refused.report());
    assert!(farm.requests().is_empty(), "nothing was sent");
}

#[test]
fn a_sustained_run_needs_a_network() {
    let farm = FakeCoordinator::new(&[("POST /v1/requests", "201 Created", &status(0, 0, ""))]);
    let desk = desk(&farm);
    let profile = "profile --hardware test-box-2c.cpu --sustained --space quick";
    let refused = desk.run(&format!("{profile} --calibrate none"));
    assert_eq!(refused.code, 2, "{}", refused.report());
    assert!(refused.stderr.contains("--network or --arch"), "{}", refused.report());
    assert!(farm.requests().is_empty(), "nothing was sent");
    let asked = desk.run(profile);
    assert_eq!(asked.code, 0, "{}", asked.report());
    assert!(farm.requests()[0].contains(r#""sustained":true"#), "{}", farm.requests()[0]);
    let time = "3 sustained runs at the end of the request, of 10 min each and 2 min of rest before: about 36 min";
    assert!(asked.stderr.contains(time), "{}", asked.report());
}

#[test]
fn a_file_s_ops_are_submitted_before_its_space() {
    let farm = FakeCoordinator::new(&[
        ("GET /v1/ops", "200", &page("")),
        (
            "POST /v1/ops",
            "201 Created",
            r#"{"name": "Mine", "digest": "op1-abababababababababababababababab"}"#,
        ),
        ("POST /v1/requests", "201 Created", &status(3, 0, "")),
    ]);
    let desk = desk(&farm);
    desk.put(
        "mine.yaml",
        "name: mine\nops:\n- name: Mine\n  nodes: [{apply: relu}]\ngrids:\n- {resolution: [8], c_in: [4], \
         c_out: [c_in]}\n",
    );
    let ran = desk.run("profile --hardware test-box-2c.cpu --op-file mine.yaml --wait --json");
    assert_eq!(ran.code, 0, "{}", ran.report());
    assert_eq!(ran.json()[0]["done"], 3);
    assert_eq!(farm.paths(), ["GET /v1/ops", "POST /v1/ops", "POST /v1/requests"]);
    assert!(
        farm.requests()[2].contains(r#""definition":{"name":"mine","#),
        "{}",
        farm.requests()[2]
    );
}

#[test]
fn networks_are_asked_for_by_name_and_from_files() {
    let only_networks = status(0, 0, "")
        .replace(r#""space": "quick", "networks": 0"#, r#""space": null, "networks": 3"#);
    let farm = FakeCoordinator::new(&[
        ("POST /v1/requests", "201 Created", &only_networks),
        ("GET /v1/ops", "200", &page("")),
        (
            "POST /v1/requests",
            "201 Created",
            &status(0, 0, "").replace(r#""networks": 0"#, r#""networks": 3"#),
        ),
    ]);
    let desk = desk(&farm);
    let ran = desk.run("profile --hardware test-box-2c.cpu --network demo_conv");
    assert_eq!(ran.code, 0, "{}", ran.report());
    assert!(ran.stdout.contains("wanted    3 networks\n"), "{}", ran.stdout);
    let body = r#"{"hardware_id":"test-box-2c.cpu","networks":["demo_conv"],"remeasure":false}"#;
    assert!(farm.requests()[0].ends_with(body), "{}", farm.requests()[0]);

    desk.put(
        "one.yaml",
        "input: {n: 1, c: 3, h: 8, w: 8}\nlayers: [{op: Conv3x3, c_out: 4, stride: 1}]\n",
    );
    let ran = desk.run_with(
        "profile --hardware test-box-2c.cpu --space quick --network one.yaml --arch -",
        format!("{SMALL}\n\n{GRAPH}\n"),
    );
    assert_eq!(ran.code, 0, "{}", ran.report());
    assert!(ran.stdout.contains("wanted    quick + 3 networks\n"), "{}", ran.stdout);
    let body = farm.requests()[2].clone();
    let body: serde_json::Value = serde_json::from_str(&body[body.find("{").unwrap()..]).unwrap();
    assert_eq!(body["space"], "quick");
    let names: Vec<&serde_json::Value> =
        body["networks"].as_array().unwrap().iter().map(|network| &network["name"]).collect();
    assert_eq!(names, [&serde_json::Value::Null, &"small".into(), &serde_json::Value::Null]);
}

#[test]
fn mistakes_in_networks_reach_no_coordinator() {
    let farm = FakeCoordinator::new(&[("GET /v1/ops", "200", &page(""))]);
    let desk = desk(&farm);
    let typo = SMALL.replace("Conv3x3", "Conv3x4");
    desk.put("typo.ndjson", format!("{SMALL}\n{typo}\n"))
        .put("broken.ndjson", format!("{SMALL}\n{{\"layers\": 7}}\n"));
    let mut all = String::new();
    for what in [
        "--network mobilenet_v9",
        "--network nowhere.yaml",
        "--arch typo.ndjson",
        "--arch broken.ndjson",
        "--network - --arch -",
        "",
        "--space quick --op-file typo.ndjson",
    ] {
        let ran = desk.run(&format!("profile --hardware test-box-2c.cpu {what}"));
        all.push_str(&format!("{what}\n{}\n", ran.report()));
    }
    assert_snapshot!(all);
    assert!(farm.paths().iter().all(|path| path == "GET /v1/ops"), "{:?}", farm.paths());
}

#[test]
fn the_stream_of_events_is_followed_to_its_end() {
    let failures = r#""Conv3x3:n1-h8-w8-i4-o4-s1": "out of memory""#;
    let events = format!(
        ": hello\n\ndata: {}\n\nevent: finished\ndata: {}\n\n",
        status(1, 0, ""),
        status(2, 1, failures)
    );
    let farm = FakeCoordinator::new(&[
        ("POST /v1/requests", "201 Created", &status(0, 0, "")),
        (&format!("GET /v1/requests/{ID}/events"), "200", &events),
    ]);
    let ran = desk(&farm).run("profile --hardware test-box-2c.cpu --space quick --wait");
    assert_snapshot!(report(&farm, &ran));
}

#[test]
fn a_stream_that_breaks_is_replaced_by_questions() {
    let broken = format!("data: {}\n\ndata: {{\"id\":", status(1, 0, ""));
    let show = format!("GET /v1/requests/{ID}");
    let farm = FakeCoordinator::new(&[
        (&show, "200", &status(0, 0, "")),
        (&format!("{show}/events"), "200", &broken),
        (&show, "503 Service Unavailable", &problem_json(503, "restarting")),
        (&show, "200", &status(3, 0, "")),
    ]);
    let ran = desk(&farm).run(&format!("request show {ID} --wait"));
    assert_snapshot!(report(&farm, &ran));
}

#[cfg(unix)]
#[test]
fn an_interrupted_wait_says_how_to_go_on() {
    use std::io::Read;
    let show = format!("GET /v1/requests/{ID}");
    let farm = FakeCoordinator::new(&[(&show, "200", &status(0, 0, ""))]);
    let desk = desk(&farm);
    let mut child = desk.command(&format!("request show {ID} --wait")).spawn().unwrap();
    // The stream is refused, so a second look at the request shows that the wait has begun.
    farm.await_requests(&show, 2);
    let kill = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(kill.unwrap().success());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let expected = format!(
        "error: the wait was interrupted. The request goes on without this program; look at it again with \
         `latlas --coordinator {} request show {ID} --wait`\n",
        farm.address
    );
    assert!(said.ends_with(&expected), "{said}");
}

#[test]
fn mistakes_in_a_space_reach_no_coordinator() {
    let farm = FakeCoordinator::new(&[("GET /v1/ops", "200", &page(""))]);
    let desk = desk(&farm);
    desk.put("typo.yaml", "name: x\ngrid: []\n")
        .put("noops.yaml", "name: x\nkeys: [\"Conv3x3:n1-h8-w8-i4-o4-s1\"]\n")
        .put(
            "impossible.yaml",
            "name: x\nkeys: [\"Conv3x3:n1-h8-w8-i4-o4-s1\", \"Conv9x9:n1-h8-w8-i4-o4-s1\"]\n",
        )
        .put("taken.yaml", "name: x\nops: [{name: Conv3x3, nodes: [{apply: relu}]}]\n");
    let mut all = String::new();
    for what in [
        "--space quik",
        "--space nowhere.yaml",
        "--space typo.yaml",
        "--op-file noops.yaml",
        "--space impossible.yaml",
    ] {
        let ran = desk.run(&format!("profile --hardware test-box-2c.cpu {what}"));
        all.push_str(&format!("{what}\n{}\n", ran.report()));
    }
    assert_snapshot!(all);
    let taken = desk.run("profile --hardware test-box-2c.cpu --op-file taken.yaml");
    let start = "error: taken.yaml: space x, op Conv3x3: the name is taken by another definition";
    assert!(taken.code == 1 && taken.stderr.starts_with(start), "{}", taken.report());
    assert!(farm.paths().iter().all(|path| path == "GET /v1/ops"), "{:?}", farm.paths());
}

#[test]
fn refusals_and_absence_come_with_their_remedy() {
    let farm = FakeCoordinator::new(&[
        ("GET /v1/tables", "401 No", &problem_json(401, "this call needs a token")),
        ("GET /v1/hardware", "403 No", &problem_json(403, "agents may not do this")),
        ("GET /v1/requests", "404 Not Found", "<html>nothing here</html>"),
    ]);
    let mut desk = desk(&farm);
    let mut all = String::new();
    for command in ["table list", "hardware list", "request list", "table get other.cpu"] {
        all.push_str(&format!("latlas {command}\n{}\n", report(&farm, &desk.run(command))));
    }
    desk.token = None;
    all.push_str(&format!("without a token\n{}\n", report(&farm, &desk.run("table list"))));
    desk.token = Some("two words".to_owned());
    all.push_str(&format!("with no token at all\n{}\n", report(&farm, &desk.run("table list"))));
    assert_snapshot!(all);
    assert!(!all.contains("secret"));

    let gone = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    desk.token = None;
    let ran = desk.run(&format!("table list --coordinator {gone}"));
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    let start = format!("error: the coordinator at {gone} does not answer (Connection refused");
    assert!(ran.stderr.starts_with(&start), "{}", ran.stderr);
}

const BOX: &str = "0198c5f2-7c1e-7d2a-9f64-3a1be0c4d7a1";
const ODD: &str = "0198c5f2-7c1e-7d2a-9f64-3a1be0c4d7a2";

/// So many seconds before now; half a unit more than a whole one, so that a slow test reads the same.
fn ago(seconds: i64) -> jiff::Timestamp {
    jiff::Timestamp::now() - jiff::SignedDuration::from_secs(seconds)
}

fn agent(id: &str, name: &str, rest: &str) -> String {
    format!(
        r#"{{"agent_id": "{id}", "name": "{name}", "hardware_id": "test-box-2c.cpu", "config": "f32-t1",
        "enrolled_at": "2026-01-02T03:04:05Z", "seen_at": "{}", "canary_at": null, {rest}}}"#,
        ago(90)
    )
    .replace('\n', " ")
}

fn two_agents() -> String {
    let lease = format!(
        r#"{{"id": "{ID}", "canary": false, "since": "2026-01-02T03:04:05Z",
        "deadline": "2026-01-02T03:04:05Z", "tasks": 64, "left": 41, "visits": 512,
        "moved_at": "2026-01-02T03:04:05Z"}}"#
    );
    let working = format!(
        r#""state": "active", "reason": null, "since": null, "by": null, "unfit": null, "leases": [{lease}]"#
    );
    let odd = format!(
        r#""state": "quarantined", "reason": "its fan is broken", "since": "{}", "by": "admin",
        "unfit": null, "leases": []"#,
        ago(9000)
    );
    let hot = format!(
        r#""state": "unfit", "reason": "it is too hot", "since": "{}", "by": null,
        "unfit": "it is too hot", "leases": []"#,
        ago(90)
    );
    [agent(BOX, "box", &working), agent(ODD, "odd", &odd), agent(ID, "hot", &hot)]
        .join(", ")
        .replace('\n', " ")
}

#[test]
fn the_farm_is_shown_on_one_screen() {
    let entry = format!(
        r#"{{"hardware_id": "test-box-2c.cpu", "config": "f32-t1", "agents": {{"active": 2, "quarantined": 1}},
        "queued": 12, "running": 41, "oldest_waiting": "{}", "failed": 4,
        "failures": {{"out of memory": 3, "a worker died": 1}}, "rows": 39, "measured_at": "{}"}}"#,
        ago(12_000),
        ago(330)
    )
    .replace('\n', " ");
    let farm = FakeCoordinator::new(&[
        ("GET /v1/farm", "200", &page(&entry)),
        ("GET /v1/agents", "200", &page(&two_agents())),
    ]);
    let desk = desk(&farm);
    let mut all = String::new();
    for command in ["farm status", "farm agents"] {
        all.push_str(&format!("latlas {command}\n{}\n", desk.run(command).report()));
    }
    assert_snapshot!(all);
    let ran = desk.run("farm status --json");
    assert_eq!((ran.code, &ran.json()[0]["queued"]), (0, &12.into()));
    let ran = desk.run("farm agents --json");
    assert_eq!(ran.json()[1]["reason"], "its fan is broken");
}

#[test]
fn boxes_are_found_by_name_and_id_and_decided_about() {
    let state = format!("PUT /v1/agents/{BOX}/state");
    let agents = page(&two_agents());
    let answer = agent(
        BOX,
        "box",
        r#""state": "draining", "reason": "x", "since": null, "by": "admin", "unfit": null, "leases": []"#,
    );
    let farm =
        FakeCoordinator::new(&[("GET /v1/agents", "200", &agents), (&state, "200", &answer)]);
    let desk = desk(&farm);
    let whole = format!("farm release {BOX}");
    for (command, body) in [
        ("farm drain box --reason moves", r#"{"state":"draining","reason":"moves"}"#),
        ("farm quarantine box --reason odd", r#"{"state":"quarantined","reason":"odd"}"#),
        (whole.as_str(), r#"{"state":"active"}"#),
    ] {
        let ran = desk.run(command);
        assert_eq!(ran.code, 0, "{}", ran.report());
        assert_eq!(ran.stdout, format!("box ({BOX}) is draining\n"));
        let asked = farm.requests();
        assert!(asked[asked.len() - 1].ends_with(body), "{}", asked[asked.len() - 1]);
    }
    assert_eq!(desk.run("farm drain box --reason moves --json").json()[0]["name"], "box");
    // Nothing is decided about a box that was not meant.
    let before = farm.requests().len();
    let ran = desk.run("farm release 0198c5f2");
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("matches 3 agents") && ran.stderr.contains(ODD), "{}", ran.stderr);
    let ran = desk.run("farm release box-9");
    assert!(
        ran.stderr.contains("there is no agent `box-9`: `latlas farm agents`"),
        "{}",
        ran.stderr
    );
    assert_eq!(farm.requests().len(), before + 2);
}
