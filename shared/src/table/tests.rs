use super::*;
use crate::testing::{failed, key, row, table};
use serde_json::{Value, json};

const KEY: &str = "Conv3x3:n1-h56-w56-i32-o32-s1";

fn text(table: &Table) -> String {
    serde_json::to_string(table).unwrap()
}

/// The result of reading a valid table of one row after `change`.
fn after(change: impl FnOnce(&mut Value)) -> String {
    let mut value = serde_json::to_value(table(vec![row(&key(KEY), 100.0)])).unwrap();
    change(&mut value);
    Table::from_json(&value.to_string()).unwrap_err().to_string()
}

#[test]
fn a_table_reads_back() {
    let rows = vec![
        row(&key(KEY), 100.5),
        failed(&key("Conv3x3:n1-h112-w112-i32-o32-s1"), "out of memory"),
    ];
    let table = table(rows);
    assert_eq!(Table::from_json(&text(&table)).unwrap(), table);
}

#[test]
fn what_is_no_table_says_what_it_is_instead() {
    for (text, problem) in [
        ("", "it is empty"),
        ("op_type,input_h\nConv3x3,56\n", "line 1, column 1: it is not JSON"),
        ("[]", "an object with `schema`"),
        ("{\"rows\": []}", "`schema` is missing"),
        ("{\"schema\": 1}", "`hardware_id` is missing"),
        ("{\"schema\": \"1\"}", "schema: is the text \"1\""),
    ] {
        let error = Table::from_json(text).unwrap_err().to_string();
        assert!(error.contains(problem), "{text}: {error}");
        assert!(error.contains("latlas table get HARDWARE"), "{text}: {error}");
    }
}

#[test]
fn another_schema_is_told_from_damage() {
    let error = Table::from_json("{\"schema\": 7, \"columns\": {}}").unwrap_err().to_string();
    insta::assert_snapshot!(error, @"the table has schema version 7, and this program reads versions 1 to 2: use the Latlas that wrote it, or download the table again with this one");
}

#[test]
fn nonsense_in_a_row_is_named() {
    let point = |field: &'static str, number: Value| {
        move |table: &mut Value| table["rows"][0]["curve"][1][field] = number
    };
    let field = |field: &'static str, value: Value| {
        move |table: &mut Value| table["rows"][0][field] = value
    };
    type Change = Box<dyn FnOnce(&mut Value)>;
    let changes: [(Change, &str); 14] = [
        (Box::new(field("latency_micros", json!(99.0))), "is what `curve` says"),
        (Box::new(field("latency_micros", json!(-1.0))), "above zero and finite"),
        (Box::new(field("latency_micros", json!(0))), "above zero and finite"),
        (Box::new(field("latency_micros", json!(1e200))), "above zero and finite"),
        (Box::new(field("latency_micros", Value::Null)), "both there, or neither"),
        (Box::new(field("curve", json!([]))), "both there, or neither"),
        (Box::new(field("status", json!("failed"))), "the status is `failed`, and only then"),
        (Box::new(field("status", json!("fine"))), "`fine` is not known here"),
        (Box::new(field("input_h", json!(0))), "`h0` is not a positive number"),
        (Box::new(field("stride", json!(64))), "stride 64 is larger than the input"),
        (Box::new(field("op_type", json!("Conv 3x3"))), "a name is a letter"),
        (Box::new(point("quiet_micros", json!(0.0))), "`curve` has ascending distances"),
        (Box::new(point("quiet_micros", json!(1e9))), "`curve` has ascending distances"),
        (Box::new(point("reuse_distance_bytes", json!(0))), "`curve` has ascending distances"),
    ];
    for (change, problem) in changes {
        let error = after(change);
        assert!(error.contains(problem), "{problem}: {error}");
    }
    let error = after(field("stride", json!(64)));
    insta::assert_snapshot!(error, @"the table is damaged (rows[0], Conv3x3:n1-h56-w56-i32-o32-s64, op key `Conv3x3:n1-h56-w56-i32-o32-s64`: stride 64 is larger than the input of 56x56; a key looks like `Conv3x3:n1-h56-w56-i32-o64-s1`): download it again");
}
