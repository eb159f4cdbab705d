//! From merged rows and measured networks to a table: one rule for all programs that build tables.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use ops_catalog::{Catalog, OpDef};

use latlas_shared::{
    Fingerprint, HardwareId, MeasuredNetwork, Missing, Row, RunConfig, TABLE_SCHEMA, Table,
    TableError, is_builtin,
};

use crate::merge::row_order;
use crate::neighbours::mark_suspects;
use crate::{Predictor, TableIndex, accuracy};

/// What a table is made from.
#[derive(Debug, Clone)]
pub struct TableContent {
    /// The class of device.
    pub hardware_id: HardwareId,
    /// How ops were run.
    pub run_config: RunConfig,
    /// The fingerprints of the boxes, by digest, as far as they are known.
    pub fingerprints: BTreeMap<String, Fingerprint>,
    /// The rows, in any order.
    pub rows: Vec<Row>,
    /// The networks with which predictions are compared, in any order.
    pub networks: Vec<MeasuredNetwork>,
}

/// Builds a table. `catalog` has the current meanings of op names; ops of the rows that are not built in are taken from
/// it. The same content gives the same version.
///
/// # Errors
/// When rows contradict each other, so that no prediction is possible.
pub fn assemble(
    content: TableContent,
    catalog: &Catalog,
    now: Timestamp,
) -> Result<Table, TableError> {
    let TableContent { hardware_id, run_config, fingerprints, mut rows, networks } = content;
    rows.sort_by_cached_key(row_order);
    mark_suspects(&mut rows, catalog);
    let ops = own_ops(&rows, catalog);
    let mut table = Table {
        schema: TABLE_SCHEMA,
        hardware_id,
        run_config,
        version: String::new(),
        created_at: now,
        fingerprints,
        accuracy: None,
        calibration: None,
        ops,
        rows,
    };
    let index = Arc::new(TableIndex::new(table)?);
    // A network with some missing rows is predicted as for a user.
    let predictor = Predictor::new(Arc::clone(&index), Missing::Interpolate);
    let (accuracy, calibration) = accuracy::judge(&predictor, &networks);
    drop(predictor);
    table = Arc::into_inner(index).expect("the predictor is gone").into_table();
    table.accuracy = (!networks.is_empty()).then_some(accuracy);
    table.calibration = Some(calibration);
    table.version = Table::content_version(
        &table.hardware_id,
        &table.run_config,
        &table.ops,
        &table.rows,
        table.accuracy.as_ref(),
        table.calibration.as_ref(),
    );
    Ok(table)
}

/// Definitions of the ops of these rows that a reader's built-in catalog lacks, by name.
fn own_ops(rows: &[Row], catalog: &Catalog) -> Vec<OpDef> {
    let own: BTreeMap<&str, &OpDef> = rows
        .iter()
        .filter_map(|row| catalog.op(&row.op_type).ok().filter(|op| *op.digest() == row.op_digest))
        .filter(|op| !is_builtin(op))
        .map(|op| (op.name(), op.def()))
        .collect();
    own.into_values().cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge::{Observation, merge_network};
    use latlas_shared::testing::{key, network_measurement, row, table};

    fn content(micros: f64) -> TableContent {
        let Table { hardware_id, run_config, fingerprints, .. } = table(Vec::new());
        let plan =
            Catalog::builtin().network("demo_conv").unwrap().plan(Catalog::builtin()).unwrap();
        let mut keys: Vec<_> = plan.steps.into_iter().map(|step| step.key).collect();
        keys.sort();
        keys.dedup();
        let rows = keys.iter().map(|key| row(key, 10.0)).collect();
        let measurement = network_measurement("demo_conv", micros);
        let truth = merge_network(&[Observation { agent: "a".into(), measurement }]).unwrap();
        TableContent { hardware_id, run_config, fingerprints, rows, networks: vec![truth] }
    }

    fn assembled(content: TableContent) -> Table {
        assemble(content, Catalog::builtin(), Timestamp::UNIX_EPOCH).unwrap()
    }

    #[test]
    fn a_version_is_about_the_content_and_not_about_its_order() {
        let one = assembled(content(100.0));
        let mut shuffled = content(100.0);
        shuffled.rows.reverse();
        assert_eq!(assembled(shuffled).version, one.version);
        let late = assemble(content(100.0), Catalog::builtin(), Timestamp::MAX).unwrap();
        assert_eq!(late.version, one.version);
        let mut other_row = content(100.0);
        other_row.rows.push(row(&key("Conv3x3:n1-h8-w8-i4-o4-s1"), 1.0));
        assert_ne!(assembled(other_row).version, one.version);
        assert_ne!(assembled(content(101.0)).version, one.version, "new truth, new version");
    }

    #[test]
    fn accuracy_comes_with_the_networks() {
        let table = assembled(content(100.0));
        let overall = table.accuracy.clone().unwrap().overall;
        assert_eq!((overall.networks, overall.predicted), (1, 1));
        let text = serde_json::to_string(&table).unwrap();
        assert_eq!(Table::from_json(&text).unwrap(), table);
        let without = assembled(TableContent { networks: Vec::new(), ..content(100.0) });
        assert_eq!(without.accuracy, None);
    }
}
