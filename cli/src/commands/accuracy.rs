//! `latlas accuracy`.

use std::io::Write;

use anyhow::{Context, Result, bail};
use latlas_client::with_query;
use latlas_shared::accuracy::{Comparison, NetworkAccuracy, Summary};
use latlas_shared::{Accuracy, Origin, Table};

use super::{Coordinator, write_json};
use crate::cli::Accuracy as Command;
use crate::files;
use crate::plot;
use crate::text::{count, duration, percent, plain};
use latlas_program::text_table::TextTable;

/// Number of worst predicted networks that are explained.
const EXPLAINED: usize = 5;

/// Number of networks without a prediction that are listed.
const NAMED: usize = 10;

/// Runs the command.
///
/// # Errors
/// When the table cannot be loaded, no whole network was measured for it, or the plot cannot be written.
pub fn run(command: &Command, farm: &Coordinator, out: &mut dyn Write) -> Result<()> {
    let table = match (&command.of.table, &command.of.hardware) {
        (Some(path), _) => files::read_table(path)?.into_table(),
        (None, Some(hardware)) => {
            let query: Vec<(&str, &str)> =
                command.config.iter().map(|config| ("config", config.as_str())).collect();
            let path = with_query(&format!("v1/tables/{hardware}"), &query);
            farm.ask(async |client| Ok(client.get(&path).await?))?
        }
        (None, None) => unreachable!("the command line has one of the two"),
    };
    let Some(accuracy) = &table.accuracy else {
        bail!(
            "no whole network was measured on {} under {}, so nobody knows how well its table predicts: \
             measure some with `latlas profile --hardware {} --network NAME`, or without a coordinator with \
             `latlas-agent bench --network NAME --out more.ndjson` and `latlas table build rows.ndjson more.ndjson`",
            table.hardware_id,
            table.run_config.id(),
            table.hardware_id
        );
    };
    if command.json {
        write_json(out, accuracy)?;
    } else {
        write_accuracy(&table, accuracy, out)?;
    }
    if let Some(path) = &command.plot {
        let svg = plot::svg(&table, accuracy);
        files::write_whole(path, svg.as_bytes()).context("the plot")?;
        eprintln!("wrote {}", path.display());
    }
    Ok(())
}

fn write_accuracy(table: &Table, accuracy: &Accuracy, out: &mut dyn Write) -> Result<()> {
    writeln!(out, "{}  {}", table.hardware_id, table.run_config.id())?;
    writeln!(out, "version {}", table.version)?;
    writeln!(
        out,
        "predictions from the rows alone; lines `calibrated on N` are corrected as `latlas predict` does it"
    )?;
    let mut columns = TextTable::new([
        "FAMILY",
        "NETWORKS",
        "PREDICTED",
        "MAPE",
        "BIAS",
        "WITHIN 5%",
        "WITHIN 10%",
        "TAU",
        "COVERED",
    ]);
    for (family, summary) in &accuracy.families {
        columns.push(cells(family, summary));
    }
    columns.push(cells("all", &accuracy.overall));
    for entry in &accuracy.calibrated {
        columns.push(cells(&format!("calibrated on {}", entry.fitted_on), &entry.summary));
    }
    columns.write(out)?;
    let worst: Vec<(&NetworkAccuracy, &Comparison)> = accuracy
        .networks
        .iter()
        .filter_map(|network| Some((network, network.prediction.as_ref()?)))
        .take(EXPLAINED)
        .collect();
    if !worst.is_empty() {
        writeln!(out, "\nThe worst predicted:")?;
    }
    for (network, comparison) in worst {
        explain(network, comparison, out)?;
    }
    write_unpredicted(accuracy, out)
}

fn cells(family: &str, summary: &Summary) -> [String; 9] {
    let signed = |share: Option<f64>| match share {
        Some(share) => format!("{:+.1}%", 100.0 * share),
        None => "-".to_owned(),
    };
    [
        family.to_owned(),
        summary.networks.to_string(),
        summary.predicted.to_string(),
        percent(summary.mape),
        signed(summary.bias),
        percent(summary.within_5),
        percent(summary.within_10),
        summary.kendall_tau.map_or_else(|| "-".to_owned(), |tau| format!("{tau:.3}")),
        percent(summary.covered),
    ]
}

/// Possible causes of a network's error, as far as the table shows them.
fn explain(network: &NetworkAccuracy, found: &Comparison, out: &mut dyn Write) -> Result<()> {
    let status = match network.status {
        latlas_shared::Status::Ok => String::new(),
        other => format!(", measured as {}", other.name()),
    };
    writeln!(
        out,
        "  {}  measured {}, predicted {} ({:+.1}%){status}",
        plain(&network.name),
        duration(network.measured_micros),
        duration(found.predicted_micros),
        100.0 * found.error
    )?;
    writeln!(out, "    {}", attribution(network, found))?;
    for carrier in &found.carriers {
        let times = if carrier.count > 1 { format!("{} x ", carrier.count) } else { String::new() };
        let origin = match carrier.origin {
            Origin::Measured => "",
            Origin::Interpolated => ", interpolated",
        };
        writeln!(
            out,
            "      {times}{}  {} of the prediction, off by up to {}{origin}",
            carrier.key,
            percent(Some(carrier.share)),
            duration(carrier.reach_micros)
        )?;
    }
    Ok(())
}

fn attribution(network: &NetworkAccuracy, found: &Comparison) -> String {
    let beyond = found.unattributed_micros.abs();
    if beyond == 0.0 {
        return "within the intervals of its ops; these may carry the error:".to_owned();
    }
    let error = (network.measured_micros - found.predicted_micros).abs();
    let side = if found.unattributed_micros > 0.0 { "slower" } else { "faster" };
    format!(
        "{} ({} of the error) {side} than the intervals of its ops allow, which can't be traced to single \
         ops; these may carry the rest:",
        duration(beyond),
        percent(Some(beyond / error))
    )
}

fn write_unpredicted(accuracy: &Accuracy, out: &mut dyn Write) -> Result<()> {
    let unpredicted = (accuracy.overall.networks - accuracy.overall.predicted) as usize;
    if unpredicted == 0 {
        return Ok(());
    }
    let verb = if unpredicted == 1 { "has" } else { "have" };
    writeln!(out, "\n{} {verb} no prediction:", count(unpredicted, "network", "networks"))?;
    let named: Vec<(&str, &str)> = accuracy
        .networks
        .iter()
        .filter_map(|network| Some((network.name.as_str(), network.unpredicted.as_deref()?)))
        .take(NAMED)
        .collect();
    for (name, why) in &named {
        writeln!(out, "  {}  {}", plain(name), plain(why))?;
    }
    if named.len() < unpredicted {
        writeln!(out, "  and {} more", unpredicted - named.len())?;
    }
    Ok(())
}
