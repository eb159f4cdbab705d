//! `latlas-coordinator rebuild`

use std::io::{self, Write as _};

use clap::Args;
use latlas_coordinator::store::Rebuilt;

use anyhow::Result;

use super::DataArgument;

/// Compute every table again from the measurements
///
/// Measurements and versions that were served stay as they are. The server must not be running.
#[derive(Args)]
#[command(after_help = "Example:\n  latlas-coordinator rebuild --data /srv/latlas")]
pub struct Arguments {
    #[command(flatten)]
    data: DataArgument,
    /// Print an object with the numbers of rows, networks and unreadable measurements
    #[arg(long)]
    json: bool,
}

pub async fn run(arguments: Arguments) -> Result<()> {
    let data = arguments.data.existing()?;
    let _lock = data.lock_for_serving()?;
    let store = data.open_store().await?;
    let rebuilt = store.rebuild().await?;
    store.close().await;
    if arguments.json {
        let Rebuilt { rows, networks, unreadable } = rebuilt;
        let all = serde_json::json!({"rows": rows, "networks": networks, "unreadable": unreadable});
        writeln!(io::stdout(), "{all}")?;
    } else {
        writeln!(io::stdout(), "{} rows and {} networks rebuilt", rebuilt.rows, rebuilt.networks)?;
    }
    if rebuilt.unreadable > 0 {
        tracing::warn!(
            "{} measurements can't be read by this version and are left out: their rows say so",
            rebuilt.unreadable
        );
    }
    Ok(())
}
