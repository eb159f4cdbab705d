//! Latency tables: the document that is served and downloaded, and the index that it is looked up by.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use ops_catalog::{Catalog, Invalid, Op, OpDef, OpDigest, OpKey, Shape};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::identity::hex;
use crate::{CurvePoint, Fingerprint, HardwareId, Latency, RunConfig, Status};

/// Version of the table format. A reader refuses a table of another one.
pub const TABLE_SCHEMA: u32 = 1;

/// No call of an op takes longer than this, in microseconds (11 days): a number beyond it is damage,
/// and sums of numbers below it stay finite.
const LONGEST_MICROS: f64 = 1e12;

/// One row: what an op costs on one class of hardware under one run config. The first columns are
/// the seed's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// Name of the op.
    pub op_type: String,
    /// Height of the input map.
    pub input_h: u32,
    /// Width of it.
    pub input_w: u32,
    /// Channels of the input.
    pub channels_in: u32,
    /// Channels of the output.
    pub channels_out: u32,
    /// Stride.
    pub stride: u32,
    /// What the op costs inside a network: the quiet quantile at the run config's reuse distance, in
    /// microseconds. Null when nothing could be measured.
    pub latency_micros: Option<f64>,
    /// Energy of one call in millijoule; null where nothing measured it.
    pub energy_mj: Option<f64>,
    /// Batch.
    pub batch: u32,
    /// Digest of the definition that was run.
    pub op_digest: OpDigest,
    /// How far the number can be trusted.
    pub status: Status,
    /// Why the status is not `ok`.
    pub reason: Option<String>,
    /// Half the width of the 95% confidence interval over the value.
    pub ci95_rel: Option<f64>,
    /// Median at the same reuse distance, in microseconds.
    pub median_micros: Option<f64>,
    /// Number of samples behind the value.
    pub samples: u32,
    /// Number of agents that measured it.
    pub agents: u32,
    /// When it was last measured.
    pub measured_at: Timestamp,
    /// The whole reuse-distance curve.
    pub curve: Vec<CurvePoint>,
}

impl Row {
    /// The row's shape.
    pub fn shape(&self) -> Shape {
        Shape {
            batch: self.batch,
            input_h: self.input_h,
            input_w: self.input_w,
            channels_in: self.channels_in,
            channels_out: self.channels_out,
            stride: self.stride,
        }
    }

    /// The row's key.
    pub fn key(&self) -> OpKey {
        OpKey { op: self.op_type.clone(), shape: self.shape() }
    }

    /// Checks what every reader of a row relies on: a key that could be asked for, a latency and a
    /// curve that agree unless the measurement failed, and times that are positive and finite.
    fn check(&self, reference_distance: u64) -> Result<(), Invalid> {
        let problem = |text: &str| Err(Invalid::new("", text));
        // The canonical spelling holds the rules for names and for shapes.
        self.key().to_string().parse::<OpKey>()?;
        let measured = self.latency_micros.is_some();
        if measured == self.curve.is_empty() {
            return problem("`latency_micros` and `curve` are both there, or neither is");
        }
        if measured == (self.status == Status::Failed) {
            return problem("`latency_micros` is null if the status is `failed`, and only then");
        }
        let possible = |micros: f64| micros > 0.0 && micros <= LONGEST_MICROS;
        if !self.latency_micros.into_iter().chain(self.median_micros).all(possible) {
            return problem("a latency is above zero and finite");
        }
        if !measured {
            return Ok(());
        }
        let curve = Latency { curve: self.curve.clone() };
        let bounded = curve.curve.iter().all(|p| p.ci95_high_micros <= LONGEST_MICROS);
        if !curve.is_sound() || !bounded {
            return problem(
                "`curve` has ascending distances, and positive times inside their intervals",
            );
        }
        // Predictions read the curve and other tools the column: they must not be told two things.
        let at_reference = self.read_curve(reference_distance as f64);
        let (Some(column), Some((_, value, _))) = (self.latency_micros, at_reference) else {
            return Ok(());
        };
        if (column / value - 1.0).abs() > 1e-6 {
            return problem("`latency_micros` is what `curve` says at the config's reuse distance");
        }
        Ok(())
    }
}

/// A table: everything that is known of one (hardware id, run config) at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// [`TABLE_SCHEMA`] of the writer.
    pub schema: u32,
    /// The class of device.
    pub hardware_id: HardwareId,
    /// How ops were run.
    pub run_config: RunConfig,
    /// Hash of the content: equal versions have equal rows.
    pub version: String,
    /// When this version came to be.
    pub created_at: Timestamp,
    /// The boxes that measured it, by digest.
    pub fingerprints: BTreeMap<String, Fingerprint>,
    /// How well it predicts whole networks; null until whole networks were measured.
    pub accuracy: Option<serde_json::Value>,
    /// Definitions of its ops that are not in the built-in catalog, so that the file explains itself.
    pub ops: Vec<OpDef>,
    /// The rows, sorted by key.
    pub rows: Vec<Row>,
}

/// Why a table could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// It is not JSON, or not of this shape.
    #[error(
        "this is not a latency table ({0}): get one with `latlas table get HARDWARE -o FILE`, in the \
         format json"
    )]
    Malformed(serde_json::Error),
    /// Another version of the format.
    #[error(
        "the table has schema version {found}, and this program reads version {TABLE_SCHEMA}: use the \
         Latlas that wrote it, or download the table again with this one"
    )]
    Schema {
        /// What the file says.
        found: u64,
    },
    /// Its content contradicts itself or the op definitions.
    #[error("the table is damaged ({0}): download it again")]
    Damaged(Invalid),
}

// The messages hold their causes, which are therefore no `source` that would be said again.
impl From<serde_json::Error> for TableError {
    fn from(error: serde_json::Error) -> Self {
        TableError::Malformed(error)
    }
}

impl From<Invalid> for TableError {
    fn from(problem: Invalid) -> Self {
        TableError::Damaged(problem)
    }
}

impl Table {
    /// The version of a content: a hash over what a prediction can depend on.
    pub fn content_version(
        hardware_id: &HardwareId,
        run_config: &RunConfig,
        ops: &[OpDef],
        rows: &[Row],
    ) -> String {
        let content = (TABLE_SCHEMA, hardware_id, run_config, ops, rows);
        let text = serde_json::to_string(&content).expect("plain data serializes to JSON");
        hex(&Sha256::digest(text)[..16])
    }

    /// Reads a table from JSON and checks it.
    ///
    /// # Errors
    /// See [`TableError`]; the schema is checked before anything else, so that a table of another
    /// version is told from a damaged one.
    pub fn from_json(text: &str) -> Result<Table, TableError> {
        #[derive(Deserialize)]
        #[serde(expecting = "an object with `schema`, `hardware_id` and `rows`")]
        struct OnlySchema {
            schema: u64,
        }
        let OnlySchema { schema } = serde_json::from_str(text)?;
        if schema != u64::from(TABLE_SCHEMA) {
            return Err(TableError::Schema { found: schema });
        }
        let table: Table = serde_json::from_str(text)?;
        table.check()?;
        Ok(table)
    }

    /// Checks every row by itself.
    fn check(&self) -> Result<(), TableError> {
        let reference = self.run_config.reuse_distance_bytes;
        for (index, row) in self.rows.iter().enumerate() {
            row.check(reference)
                .map_err(|e| e.within(format!("rows[{index}], {}", shown_key(row))))?;
        }
        Ok(())
    }
}

/// A row's key for a message; its name may be anything.
fn shown_key(row: &Row) -> String {
    row.key().to_string().chars().filter(|c| !c.is_control()).take(120).collect()
}

/// A table made ready for look-ups.
///
/// Rows are found by the digest of what was run, so a row serves every name of one computation and
/// never another computation of the same name.
#[derive(Debug)]
pub struct TableIndex {
    table: Table,
    catalog: Catalog,
    by_digest: HashMap<OpDigest, HashMap<Shape, usize>>,
    /// Rows of definitions that are not the catalog's of that name: they say why a key is missing.
    foreign: HashMap<OpKey, usize>,
}

impl TableIndex {
    /// Indexes a table, with the built-in catalog and the table's own ops.
    ///
    /// # Errors
    /// When a row or an op definition of the table is not valid, or a row stands twice.
    pub fn new(table: Table) -> Result<TableIndex, TableError> {
        table.check()?;
        let builtin = Catalog::builtin();
        let own = table.ops.iter().filter(|def| builtin.op(&def.name).is_err()).cloned();
        let catalog = builtin.with_ops(own)?;
        let mut by_digest: HashMap<OpDigest, HashMap<Shape, usize>> = HashMap::new();
        let mut foreign = HashMap::new();
        for (index, row) in table.rows.iter().enumerate() {
            if !catalog.op(&row.op_type).is_ok_and(|op| *op.digest() == row.op_digest) {
                foreign.insert(row.key(), index);
            }
            let rows = by_digest.entry(row.op_digest.clone()).or_default();
            match rows.entry(row.shape()) {
                Entry::Vacant(place) => {
                    place.insert(index);
                }
                Entry::Occupied(mut place) => {
                    let first = &table.rows[*place.get()];
                    if first.op_type == row.op_type {
                        let twice = Invalid::new(shown_key(row), "the row stands twice");
                        return Err(twice.into());
                    }
                    // Two names of one computation: the first that has a number serves both.
                    if first.latency_micros.is_none() {
                        place.insert(index);
                    }
                }
            }
        }
        Ok(TableIndex { table, catalog, by_digest, foreign })
    }

    /// The table.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The ops that networks may use with this table.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The row of an op at a shape, with or without a number in it.
    pub fn row(&self, op: &Op, shape: &Shape) -> Option<&Row> {
        let index = *self.by_digest.get(op.digest())?.get(shape)?;
        Some(&self.table.rows[index])
    }

    /// The row of this name and shape whose definition is not the catalog's.
    pub(crate) fn foreign_row(&self, key: &OpKey) -> Option<&Row> {
        self.foreign.get(key).map(|&index| &self.table.rows[index])
    }

    /// The rows that have a number and are found by look-ups, with their ops, in the table's order.
    pub(crate) fn measured(&self) -> impl Iterator<Item = (&Arc<Op>, &Row)> {
        self.table.rows.iter().enumerate().filter_map(|(index, row)| {
            let op = self.catalog.op(&row.op_type).ok()?;
            let found = self.by_digest.get(op.digest())?.get(&row.shape())?;
            (*found == index && row.latency_micros.is_some()).then_some((op, row))
        })
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! Tables made of nothing, for tests.

    use super::*;
    use crate::{Allocator, Dtype, MemoryFormat};

    pub(crate) const MIB: u64 = 1 << 20;

    /// A row that takes `micros` at the reference distance, less near and more far from it.
    pub(crate) fn row(key: &OpKey, micros: f64) -> Row {
        let point = |reuse_distance_bytes, factor: f64| CurvePoint {
            reuse_distance_bytes,
            quiet_micros: micros * factor,
            ci95_low_micros: micros * factor * 0.98,
            ci95_high_micros: micros * factor * 1.03,
            median_micros: micros * factor * 1.05,
            samples: 60,
            visits: 12,
            host_micros: None,
        };
        let op = Catalog::builtin().op(&key.op).unwrap();
        Row {
            op_type: key.op.clone(),
            input_h: key.shape.input_h,
            input_w: key.shape.input_w,
            channels_in: key.shape.channels_in,
            channels_out: key.shape.channels_out,
            stride: key.shape.stride,
            latency_micros: Some(micros),
            energy_mj: None,
            batch: key.shape.batch,
            op_digest: op.digest().clone(),
            status: Status::Ok,
            reason: None,
            ci95_rel: Some(0.025),
            median_micros: Some(micros * 1.05),
            samples: 60,
            agents: 1,
            measured_at: Timestamp::UNIX_EPOCH,
            curve: vec![point(0, 0.8), point(8 * MIB, 1.0), point(64 * MIB, 1.4)],
        }
    }

    /// A row of something that failed.
    pub(crate) fn failed(key: &OpKey, reason: &str) -> Row {
        Row {
            latency_micros: None,
            median_micros: None,
            ci95_rel: None,
            status: Status::Failed,
            reason: Some(reason.to_owned()),
            curve: Vec::new(),
            ..row(key, 1.0)
        }
    }

    pub(crate) fn table(rows: Vec<Row>) -> Table {
        Table {
            schema: TABLE_SCHEMA,
            hardware_id: "test-box-2c.cpu".parse().unwrap(),
            run_config: RunConfig {
                dtype: Dtype::F32,
                memory_format: MemoryFormat::Contiguous,
                threads: 1,
                allocator: Allocator::Retain,
                reuse_distance_bytes: 8 * MIB,
                libtorch: "2.13.0".to_owned(),
            },
            version: "0123456789abcdef0123456789abcdef".to_owned(),
            created_at: Timestamp::UNIX_EPOCH,
            fingerprints: BTreeMap::new(),
            accuracy: None,
            ops: Vec::new(),
            rows,
        }
    }

    pub(crate) fn key(text: &str) -> OpKey {
        text.parse().unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{failed, key, row, table};
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    const KEY: &str = "Conv3x3:n1-h56-w56-i32-o32-s1";

    fn text(table: &Table) -> String {
        serde_json::to_string(table).unwrap()
    }

    /// What reading says once `change` was made to a sound table of one row.
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
            ("", "EOF while parsing"),
            ("op_type,input_h\nConv3x3,56\n", "expected value at line 1 column 1"),
            ("[]", "expected an object with `schema`"),
            ("{\"rows\": []}", "missing field `schema`"),
            ("{\"schema\": 1}", "missing field `hardware_id`"),
            ("{\"schema\": \"1\"}", "invalid type: string"),
        ] {
            let error = Table::from_json(text).unwrap_err().to_string();
            assert!(error.contains(problem), "{text}: {error}");
            assert!(error.contains("latlas table get HARDWARE"), "{text}: {error}");
        }
    }

    #[test]
    fn another_schema_is_told_from_damage() {
        let error = Table::from_json("{\"schema\": 7, \"columns\": {}}").unwrap_err().to_string();
        insta::assert_snapshot!(error, @"the table has schema version 7, and this program reads version 1: use the Latlas that wrote it, or download the table again with this one");
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
            (Box::new(field("status", json!("fine"))), "unknown variant `fine`"),
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
        old.op_digest = OpDigest("0".repeat(32));
        let index = TableIndex::new(table(vec![old])).unwrap();
        let op = Catalog::builtin().op("Conv3x3").unwrap();
        assert!(index.row(op, &key(KEY).shape).is_none());
        assert!(index.foreign_row(&key(KEY)).is_some());
    }

    proptest! {
        /// Bytes that were cut, repeated or replaced give an error or a table, never a panic.
        #[test]
        fn damage_never_panics(at in 0.0f64..1.0, length in 0usize..40, with in "[-0-9.eE{}\\[\\]\",a-z]{0,8}") {
            let whole = text(&table(vec![row(&key(KEY), 100.0)]));
            let start = (at * whole.len() as f64) as usize;
            let end = (start + length).min(whole.len());
            let damaged = format!("{}{with}{}", &whole[..start], &whole[end..]);
            if let Ok(table) = Table::from_json(&damaged) {
                let _ = TableIndex::new(table);
            }
        }
    }
}
