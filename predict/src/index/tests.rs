use latlas_shared::testing::{failed, key, row, table};
use proptest::prelude::*;

use super::*;

const KEY: &str = "Conv3x3:n1-h56-w56-i32-o32-s1";

#[test]
fn a_row_stands_once() {
    let twice = table(vec![row(&key(KEY), 1.0), row(&key(KEY), 2.0)]);
    let error = TableIndex::new(twice).unwrap_err().to_string();
    insta::assert_snapshot!(error, @"the table is damaged (Conv3x3:n1-h56-w56-i32-o32-s1: the row stands twice): download it again");
}

#[test]
fn a_row_serves_every_name_of_one_computation() {
    let mut definition = Catalog::builtin().op("Conv3x3").unwrap().def().clone();
    definition.name = "MyConv".to_owned();
    definition.aliases = Vec::new();
    let mut mine = row(&key(KEY), 2.0);
    mine.op_type = "MyConv".to_owned();
    let mut two_names = table(vec![failed(&key(KEY), "a reason"), mine]);
    two_names.ops.push(definition);
    let index = TableIndex::new(two_names).unwrap();
    for name in ["Conv3x3", "MyConv"] {
        let op = index.catalog().op(name).unwrap();
        assert_eq!(index.row(op, &key(KEY).shape).unwrap().latency_micros, Some(2.0), "{name}");
    }
}

#[test]
fn a_row_of_another_definition_does_not_serve() {
    let mut old = row(&key(KEY), 2.0);
    old.op_digest = "op1-00000000000000000000000000000000".parse().unwrap();
    let index = TableIndex::new(table(vec![old])).unwrap();
    let op = Catalog::builtin().op("Conv3x3").unwrap();
    assert!(index.row(op, &key(KEY).shape).is_none());
    assert!(index.foreign_row(&key(KEY)).is_some());
}

proptest! {
    /// Deleted, repeated or replaced bytes give an error or a table, never a panic.
    #[test]
    fn damage_never_panics(at in 0.0f64..1.0, length in 0usize..40, with in "[-0-9.eE{}\\[\\]\",a-z]{0,8}") {
        let whole = serde_json::to_string(&table(vec![row(&key(KEY), 100.0)])).unwrap();
        let start = (at * whole.len() as f64) as usize;
        let end = (start + length).min(whole.len());
        let damaged = format!("{}{with}{}", &whole[..start], &whole[end..]);
        if let Ok(table) = Table::from_json(&damaged) {
            let _ = TableIndex::new(table);
        }
    }
}
