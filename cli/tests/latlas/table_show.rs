//! What `latlas table show` says of rows that are not `ok`.

use crate::common::{Desk, keys, plausible, row, table};
use latlas_shared::{RowStatus, SustainedOverBurst, Table};

const NETWORK: &str = r#"{"input": {"n": 1, "c": 3, "h": 16, "w": 16}, "layers": [
  {"op": "Conv3x3", "c_out": 16, "stride": 2}, {"op": "MBConv3_3x3", "c_out": 16, "stride": 1},
  {"op": "MaxPool", "c_out": 16, "stride": 2}]}"#;

/// The last lines of a table of three rows that have these statuses, in the order of keys.
fn last_lines(statuses: [RowStatus; 3]) -> Vec<String> {
    let mut rows: Vec<_> = keys(&[NETWORK]).iter().map(|k| row(k, plausible(k))).collect();
    for (row, status) in rows.iter_mut().zip(statuses) {
        row.status = status;
        row.reason = (status != RowStatus::Ok).then(|| "after 60 visits\nit is wide".to_owned());
    }
    let desk = Desk::new();
    desk.put("table.json", serde_json::to_string(&table(rows)).unwrap());
    let ran = desk.run("table show table.json");
    assert_eq!(ran.code, 0, "{}", ran.report());
    // Two lines of the header, the columns' names, and the rows.
    ran.stdout.lines().skip(2 + 1 + 3).map(str::to_owned).collect()
}

#[test]
fn a_table_of_good_rows_needs_no_remark() {
    assert_eq!(last_lines([RowStatus::Ok; 3]), [""; 0]);
}

#[test]
fn rows_that_did_not_converge_are_counted_with_a_reason() {
    let lines = last_lines([RowStatus::NotConverged, RowStatus::Ok, RowStatus::NotConverged]);
    assert_eq!(
        lines,
        [
            "2 of 3 rows are not_converged: the time for a row was over before its interval was narrow \
             enough; the first, Conv3x3:n1-h16-w16-i3-o16-s2: after 60 visits it is wide"
        ]
    );
}

#[test]
fn each_status_has_a_line() {
    let lines = last_lines([RowStatus::Degraded, RowStatus::NotConverged, RowStatus::Ok]);
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with("1 of 3 rows is not_converged: "), "{lines:?}");
    assert!(
        lines[1].starts_with("1 of 3 rows is degraded: the machine was disturbed"),
        "{lines:?}"
    );
}

#[test]
fn a_device_that_becomes_slower_is_told_in_the_header() {
    let rows = || keys(&[NETWORK]).iter().map(|k| row(k, plausible(k))).collect();
    let third_line = |sustained: Option<SustainedOverBurst>| {
        let desk = Desk::new();
        let table = Table { sustained, ..table(rows()) };
        desk.put("table.json", serde_json::to_string(&table).unwrap());
        let ran = desk.run("table show table.json");
        assert_eq!(ran.code, 0, "{}", ran.report());
        ran.stdout.lines().nth(2).unwrap().to_owned()
    };
    let over_burst = 1.1849;
    let ten_minutes = SustainedOverBurst { over_burst, networks: 3, seconds: 600 };
    assert_eq!(third_line(Some(ten_minutes)), "sustained over burst  1.18 (3 networks, 10 min)");
    let short = SustainedOverBurst { networks: 1, seconds: 20, ..ten_minutes };
    assert_eq!(third_line(Some(short)), "sustained over burst  1.18 (1 network, 20 s)");
    assert!(third_line(None).starts_with("OP "));
}
