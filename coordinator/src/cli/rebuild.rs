//! `latlas-coordinator rebuild`

use std::io::{self, Write as _};

use clap::Args;

use super::{DataArgument, Failure};

/// Compute every table again from the measurements
///
/// Measurements and versions that were served stay as they are. The server must not be running.
#[derive(Args)]
#[command(after_help = "Example:\n  latlas-coordinator rebuild --data /srv/latlas")]
pub struct Arguments {
    #[command(flatten)]
    data: DataArgument,
    /// Print an object with the numbers of rows and networks
    #[arg(long)]
    json: bool,
}

pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let data = arguments.data.existing()?;
    let _lock = data.lock_for_serving()?;
    let store = data.open_store().await?;
    let rebuilt = store.rebuild().await?;
    store.close().await;
    if arguments.json {
        let (rows, networks) = (rebuilt.rows, rebuilt.networks);
        writeln!(io::stdout(), "{}", serde_json::json!({"rows": rows, "networks": networks}))?;
    } else {
        writeln!(io::stdout(), "{} rows and {} networks rebuilt", rebuilt.rows, rebuilt.networks)?;
    }
    Ok(())
}
