//! `latlas ops`, as users meet it.

use crate::common::Desk;
use crate::common::farm::FakeCoordinator;
use insta::assert_snapshot;
use ops_catalog::Catalog;

/// A definition's digest changes with what is counted as part of it, and is of no interest here.
fn without_digests(text: &str) -> String {
    let digest = Catalog::builtin().op("Conv3x3").unwrap().digest().to_string();
    text.replace(&digest, "DIGEST")
}

#[test]
fn all_ops_are_listed() {
    let desk = Desk::new();
    let ran = desk.run("ops list");
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    let count = Catalog::builtin().ops().count();
    assert_eq!(ran.stdout.lines().count(), 1 + count);
    assert!(
        ran.stdout
            .lines()
            .any(|line| line.starts_with("MBConv6_3x3 ") && line.contains(" MBConv6 "))
    );
    let json = desk.run("ops list --json").json();
    assert_eq!(json.len(), count);
    let mbconv = json.iter().find(|op| op["name"] == "MBConv6_3x3").unwrap();
    assert_eq!((&mbconv["aliases"][0], &mbconv["input"]), (&"MBConv6".into(), &"map".into()));
}

#[test]
fn an_op_is_shown_with_its_cost() {
    let desk = Desk::new();
    let ran = desk.run("ops show Conv3x3 --key n1-h56-w56-i32-o64-s2");
    assert_snapshot!(without_digests(&ran.report()));
    let whole = desk.run("ops show Conv3x3 --key Conv3x3:n1-h56-w56-i32-o64-s2");
    assert_eq!(ran.stdout, whole.stdout);
    let json = desk.run("ops show Conv3x3 --key n1-h56-w56-i32-o64-s2 --json");
    assert_snapshot!(without_digests(&json.report()));
}

#[test]
fn an_alias_names_its_op() {
    let desk = Desk::new();
    assert!(desk.run("ops show MBConv6").stdout.starts_with("MBConv6_3x3\n"));
    let ran = desk.run("ops show MBConv6 --key MBConv6:n1-h8-w8-i8-o8-s1");
    assert_eq!(ran.code, 0, "{}", ran.report());
    assert!(ran.stdout.contains("at MBConv6_3x3:n1-h8-w8-i8-o8-s1"));
}

#[test]
fn mistakes_are_named() {
    let desk = Desk::new();
    let mut report = String::new();
    for arguments in [
        "ops show Conv3x4",
        "ops show Conv3x3 --key n1-h56-w56-i32-o64",
        "ops show Conv3x3 --key n1-h2-w2-i32-o64-s3",
        "ops show Conv3x3 --key Conv1x1:n1-h2-w2-i32-o64-s1",
        "ops show Identity --key n1-h2-w2-i32-o64-s1",
    ] {
        let ran = desk.run(arguments);
        assert_eq!(ran.stdout, "");
        report.push_str(&format!("latlas {arguments}: exit code {}\n{}\n", ran.code, ran.stderr));
    }
    assert_snapshot!(report);
}

#[test]
fn ops_that_were_submitted_are_known_to_the_coordinator() {
    let def = r#"{"name": "Mine", "doc": "A new op.", "nodes": [{"apply": "relu"}]}"#;
    let entry = format!(
        r#"{{"digest": "op1-abababababababababababababababab", "builtin": false, "definition": {def}}}"#
    );
    let page = format!(r#"{{"items": [{entry}], "next_cursor": null}}"#);
    let farm = FakeCoordinator::new(&[("GET /v1/ops", "200", &page)]);
    let mut desk = Desk::new();
    desk.coordinator = Some(farm.address.clone());
    assert_eq!(desk.run("ops show Mine").code, 1);
    let ran = desk.run("ops show Mine --farm");
    assert!(ran.stdout.starts_with("Mine\nA new op.\n"), "{}", ran.report());
    assert!(desk.run("ops list --farm").stdout.lines().any(|line| line.starts_with("Mine ")));
}
