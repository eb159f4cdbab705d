//! `latlas-coordinator backup` and `restore`

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;
use jiff::Timestamp;
use latlas_coordinator::store::{Copied, copy, read_through};

use anyhow::Result;

use super::DataArgument;

/// Copy the database to a file, while a server goes on or not
///
/// The copy is the database as it stands at one moment, checked, and there once it is whole. Nothing is
/// overwritten; into a directory it goes under a name with the time.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    latlas-coordinator backup /backups/            # /backups/latlas-20261124T120000Z.db\n  \
    latlas-coordinator backup before-upgrade.db --data /srv/latlas")]
pub struct BackupArguments {
    /// The file to write, or the directory to write it into
    #[arg(value_name = "FILE|DIR")]
    to: PathBuf,
    #[command(flatten)]
    data: DataArgument,
    /// Print an object with the file, its bytes and its measurements
    #[arg(long)]
    json: bool,
}

/// Make a data directory from a backup
///
/// The directory must have no database, so nothing is overwritten, and nothing that an earlier one has left
/// beside it.
#[derive(Args)]
#[command(after_help = "Example:\n  \
    latlas-coordinator restore /backups/latlas-20261124T120000Z.db --data /srv/latlas")]
pub struct RestoreArguments {
    /// A file that `backup` has written
    #[arg(value_name = "FILE")]
    from: PathBuf,
    #[command(flatten)]
    data: DataArgument,
    /// Print an object with the file, its bytes and its measurements
    #[arg(long)]
    json: bool,
}

pub async fn backup(arguments: BackupArguments) -> Result<()> {
    let BackupArguments { to, data, json } = arguments;
    let to = if to.is_dir() {
        to.join(Timestamp::now().strftime("latlas-%Y%m%dT%H%M%SZ.db").to_string())
    } else {
        to
    };
    let copied = copy(&data.existing()?.database(), &to).await?;
    report(&to, copied, json)?;
    Ok(())
}

pub async fn restore(arguments: RestoreArguments) -> Result<()> {
    let RestoreArguments { from, data, json } = arguments;
    let data = data.open()?;
    let _lock = data.lock_for_serving()?;
    let copied = copy(&from, &data.database()).await?;
    // An older database is migrated now, and a newer one is refused now.
    data.open_store().await?.close().await;
    let measurements = read_through(&data.database()).await?;
    if measurements != copied.measurements {
        anyhow::bail!(
            "the backup has {} measurements, and {} has {measurements} after it was opened: don't use it, and \
             look at the disk",
            copied.measurements,
            data.database().display()
        );
    }
    report(&data.database(), copied, json)?;
    Ok(())
}

fn report(file: &Path, copied: Copied, json: bool) -> io::Result<()> {
    let Copied { measurements, bytes } = copied;
    let file = file.display().to_string();
    if json {
        writeln!(
            io::stdout(),
            "{}",
            serde_json::json!({"file": file, "bytes": bytes, "measurements": measurements})
        )?;
    } else {
        writeln!(io::stdout(), "{file}: {measurements} measurements, {bytes} bytes")?;
    }
    Ok(())
}
