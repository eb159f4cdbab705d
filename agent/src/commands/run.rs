//! `latlas-agent run`: works for a coordinator.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use latlas_client::TlsFiles;
use ops_catalog::text;

use crate::farm::{EnrolToken, Farm, Settings};
use crate::options::{Chosen, Execution, default_state_dir};
use crate::system::Hours;

/// Flags of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Address of the coordinator, e.g. `http://127.0.0.1:8700`
    #[arg(long, value_name = "URL", env = "LATLAS_COORDINATOR")]
    coordinator: String,
    /// PEM file of certificates to trust in addition to the system's, for a coordinator with a self-signed
    /// certificate
    #[arg(long, value_name = "FILE", env = "LATLAS_CA_FILE", hide_env_values = true)]
    ca_file: Option<PathBuf>,
    /// PEM file of this box's client certificate and private key, for a coordinator that requires one
    #[arg(long, value_name = "FILE", env = "LATLAS_CLIENT_CERT", hide_env_values = true)]
    client_cert: Option<PathBuf>,
    /// Enrol token. Needed only for the first start. Every user of the box can read an argument: prefer the file, or
    /// the variable
    #[arg(long, value_name = "T", env = "LATLAS_ENROLL_TOKEN", hide_env_values = true)]
    enroll_token: Option<String>,
    /// File with the enrol token, so that no list of processes shows it. The file can be removed once the agent
    /// has enrolled
    #[arg(
        long,
        value_name = "FILE",
        env = "LATLAS_ENROLL_TOKEN_FILE",
        conflicts_with = "enroll_token"
    )]
    enroll_token_file: Option<PathBuf>,
    /// Unique, permanent id of this box. The farm recognizes the box by it after the state directory is lost.
    /// Default: a hash of machine id and serial numbers. Containers need it
    #[arg(long, value_name = "TEXT", env = "LATLAS_BOX_ID")]
    box_id: Option<String>,
    /// Directory of the agent's identity and of unsent measurements. Default: latlas-agent in $XDG_STATE_HOME or
    /// ~/.local/state
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Name of the agent in lists. Default: the host name. `latlas farm name` changes it later
    #[arg(long, value_name = "NAME", env = "LATLAS_AGENT_NAME", value_parser = name)]
    name: Option<String>,
    #[command(flatten)]
    execution: Execution,
    /// Take no work while tasks of this machine wait for a processor during more than this share of the time
    #[arg(long, value_name = "PERCENT", default_value_t = 90,
          value_parser = clap::value_parser!(u8).range(..=100))]
    busy_limit: u8,
    /// Take work only in these hours of the day, by the box's local time, such as 20:00-06:30. Work that has begun is
    /// finished
    #[arg(long, value_name = "FROM-TO")]
    hours: Option<Hours>,
    /// Exit when no task is left
    #[arg(long)]
    once: bool,
    /// Serve the agent's own metrics for Prometheus at `/metrics` of this address. They need no token: use a
    /// loopback address or a private network
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics: Option<SocketAddr>,
}

/// Enrols, then measures and reports until told to stop.
///
/// # Errors
/// When the coordinator cannot be reached at the start or refuses, or nothing can be measured.
pub fn run(args: RunArgs) -> Result<()> {
    let Chosen { launch, recorder } = args.execution.chosen()?;
    let state = args.state.map_or_else(default_state_dir, Ok)?;
    let enroll_token = match args.enroll_token_file {
        Some(file) => read_token(&file)?,
        None => match args.enroll_token.filter(|token| !token.trim().is_empty()) {
            Some(token) => EnrolToken::Given(token),
            None => EnrolToken::Missing("give --enroll-token-file FILE".to_owned()),
        },
    };
    let settings = Settings {
        coordinator: args.coordinator,
        tls: TlsFiles { ca: args.ca_file, client_cert: args.client_cert },
        enroll_token,
        box_id: args.box_id.filter(|id| !id.trim().is_empty()),
        state,
        name: args.name.filter(|name| !name.is_empty()),
        once: args.once,
        busy_limit: args.busy_limit.into(),
        hours: args.hours,
        metrics: args.metrics,
        launch,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let worked = runtime.block_on(async { Farm::enter(settings, recorder).await?.work().await });
    // The runtime does not wait for a dropped visit. The worker of that visit ends with this process.
    runtime.shutdown_background();
    worked
}

/// A name; an empty one, as of a variable that is set to nothing, is none.
fn name(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.chars().count() > 100 || text.chars().any(char::is_control) {
        return Err("a name has at most 100 characters on one line".to_owned());
    }
    Ok(text.to_owned())
}

/// The token in a file. An enrolled agent needs none, so it may be gone.
fn read_token(file: &Path) -> Result<EnrolToken> {
    let missing = |why: &str| EnrolToken::Missing(format!("{}: {why}", file.display()));
    match std::fs::read(file) {
        Ok(bytes) => {
            let text = text::decode(&bytes).with_context(|| file.display().to_string())?;
            let token = text.trim();
            if token.is_empty() {
                tracing::warn!("the file of the enrol token, {}, is empty", file.display());
                return Ok(missing("the file is empty"));
            }
            Ok(EnrolToken::Given(token.to_owned()))
        }
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(missing("there is no such file")),
        Err(e) => Err(e).with_context(|| format!("reading the enrol token in {}", file.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_a_token_is_read_as_people_have_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        let missing = |why| EnrolToken::Missing(format!("{}: {why}", file.display()));
        assert_eq!(read_token(&file).unwrap(), missing("there is no such file"));
        for (bytes, token) in [
            (&b"secret\n"[..], Some("secret")),
            (b"\xef\xbb\xbfsecret\r\n", Some("secret")),
            (b"\xff\xfes\0\n\0", Some("s")),
            (b"", None),
            (b" \n", None),
        ] {
            std::fs::write(&file, bytes).unwrap();
            let expected = token
                .map_or(missing("the file is empty"), |token| EnrolToken::Given(token.to_owned()));
            assert_eq!(read_token(&file).unwrap(), expected, "{bytes:?}");
        }
        std::fs::write(&file, b"\xff").unwrap();
        let said = format!("{:#}", read_token(&file).unwrap_err());
        assert!(said.contains("save the file as UTF-8"), "{said}");
    }
}
