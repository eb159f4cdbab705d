//! From merged rows and measured networks to a table: one rule for all programs that build tables.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use ops_catalog::{Catalog, OpDef};

use latlas_shared::{
    Fingerprint, HardwareId, MeasuredNetwork, Missing, Row, RunConfig, Status, Sustained,
    SustainedOverBurst, TABLE_SCHEMA, Table, TableError, is_builtin,
};

use crate::merge::row_order;
use crate::neighbours::mark_suspects;
use crate::{Predictor, TableIndex, accuracy, stats};

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
    /// The networks with which predictions are compared, and the sustained runs, in any order.
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
    // The latency of a sustained run is not that of a network that is called now and then.
    let (runs, networks): (Vec<MeasuredNetwork>, Vec<MeasuredNetwork>) =
        networks.into_iter().partition(|measured| measured.network.is_sustained());
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
        sustained: sustained_over_burst(&runs),
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
        table.sustained.as_ref(),
    );
    Ok(table)
}

/// How much slower the device is after a sustained run: the median over the networks. Of runs of several durations the
/// longest count. A run beside other load says nothing about heat.
fn sustained_over_burst(runs: &[MeasuredNetwork]) -> Option<SustainedOverBurst> {
    let quiet = runs.iter().filter(|network| network.status == Status::Ok);
    let runs: Vec<Sustained> = quiet.filter_map(|network| network.sustained).collect();
    let seconds = runs.iter().map(|run| run.seconds).max()?;
    let longest = runs.iter().filter(|run| run.seconds == seconds);
    let ratios: Vec<f64> = longest.map(Sustained::over_burst).collect();
    let networks = u32::try_from(ratios.len()).unwrap_or(u32::MAX);
    Some(SustainedOverBurst { over_burst: stats::median(&ratios), networks, seconds })
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
    use latlas_shared::testing::{key, network_measurement, row, sustained_measurement, table};
    use latlas_shared::{Subject, WholeNetwork};

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

    /// A sustained run that lasts so many seconds and ends slower by a factor.
    fn sustained_run(name: &str, seconds: u32, over_burst: f64) -> MeasuredNetwork {
        let mut measurement = sustained_measurement(name, 100.0, over_burst);
        let network = WholeNetwork::builtin(name).unwrap().sustained(seconds).unwrap();
        measurement.subject = Subject::Network(Box::new(network));
        measurement.sustained = measurement.sustained.map(|run| Sustained { seconds, ..run });
        merge_network(&[Observation { agent: "a".into(), measurement }]).unwrap()
    }

    #[test]
    fn sustained_runs_make_one_figure_and_no_truth() {
        let usual = assembled(content(100.0));
        assert_eq!(usual.sustained, None);
        let mut with_runs = content(100.0);
        for (name, over_burst) in [("demo_conv", 1.1), ("squeezenet1_1", 1.2), ("resnet18", 1.5)] {
            with_runs.networks.push(sustained_run(name, 600, over_burst));
        }
        // A short trial says less.
        with_runs.networks.push(sustained_run("demo_conv", 20, 1.0));
        // Beside other load it says nothing.
        let disturbed = sustained_run("mobilenet_v2", 600, 9.0);
        with_runs.networks.push(MeasuredNetwork { status: Status::Degraded, ..disturbed });
        let table = assembled(with_runs);
        let sustained = table.sustained.unwrap();
        assert_eq!((sustained.networks, sustained.seconds), (3, 600));
        assert!((sustained.over_burst - 1.2).abs() < 1e-12);
        assert_eq!((&table.accuracy, &table.calibration), (&usual.accuracy, &usual.calibration));
        assert_ne!(table.version, usual.version);
        let text = serde_json::to_string(&table).unwrap();
        assert_eq!(Table::from_json(&text).unwrap(), table);
    }
}
