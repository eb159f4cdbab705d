//! The help texts: a change of one is a change of the command line, and is looked at.

use crate::common::Desk;
use insta::assert_snapshot;

#[test]
fn every_command_has_help_with_an_example() {
    let desk = Desk::new();
    let mut report = String::new();
    for command in [
        "",
        "ops",
        "networks",
        "hardware",
        "space",
        "table",
        "request",
        "farm",
        "farm tokens",
        "ops list",
        "ops show",
        "ops export",
        "networks list",
        "networks show",
        "networks draw",
        "networks keys",
        "networks cost",
        "networks export",
        "space list",
        "space show",
        "space size",
        "space draw",
        "space decode",
        "space encode",
        "space keys",
        "hardware list",
        "farm status",
        "farm agents",
        "farm quarantine",
        "farm drain",
        "farm release",
        "farm name",
        "farm label",
        "farm remove",
        "table list",
        "table get",
        "table build",
        "table show",
        "profile",
        "request list",
        "request show",
        "request cancel",
        "predict",
        "accuracy",
        "prune",
        "arch",
        "arch hash",
        "farm tokens list",
        "farm tokens revoke",
        "farm audit",
    ] {
        let ran = desk.run(&format!("{command} --help"));
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{}", ran.report());
        assert!(ran.stdout.contains("Example:\n  latlas "), "{command}");
        report.push_str(&format!("==== latlas {command} --help\n{}\n", ran.stdout));
    }
    assert_snapshot!(report);
}

#[test]
fn wrong_usage_exits_with_two() {
    let desk = Desk::new();
    for arguments in [
        "",
        "tabel",
        "table",
        "table get",
        "table show",
        "table get UPPER",
        "table get x.cpu --format parquet",
        "table get x.cpu --version ../x",
        "table get x.cpu --version abcd --config y",
        "ops show",
        "farm",
        "farm quarantine box",
        "farm release",
        "farm name",
        "farm label",
        "farm remove",
        "networks",
        "networks keys",
        "networks draw --family mobilenet",
        "networks draw --count 3",
        "space",
        "space show",
        "space show darts --definition --json",
        "space draw darts",
        "space decode darts",
        "space encode darts",
        "profile --hardware x.cpu",
        "request show my-request",
        "table list --coordinator 127.0.0.1:8700",
        "predict --table - --arch -",
        "prune --table - --config x.yaml",
        "arch",
        "arch hash",
        "arch hash --arch - --network -",
        "farm",
        "farm tokens",
        "farm tokens revoke",
        "farm tokens revoke seven",
        "farm audit --last 0",
        "ops show Conv3x3 --key n1-h5",
        "ops show Conv3x3 --key Conv5x5:n1-h5-w5-i1-o1-s1",
    ] {
        let ran = desk.run(arguments);
        assert_eq!(
            (ran.code, ran.stdout.as_str()),
            (2, ""),
            "latlas {arguments}\n{}",
            ran.report()
        );
        assert!(!ran.stderr.is_empty());
    }
}
