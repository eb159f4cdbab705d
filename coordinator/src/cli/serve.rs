//! `latlas-coordinator serve`

use std::io::{self, Write};
use std::net::{AddrParseError, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::Args;
use jiff::SignedDuration;
use latlas_coordinator::limits::Rate;
use latlas_coordinator::rules::lease::Policy;
use latlas_coordinator::{App, DataDir, DataDirError, ServerLock, Settings, Tls, alarm};
use sd_notify::NotifyState;
use tokio::net::TcpListener;

use anyhow::Result;
use latlas_program::exit::Usage;

use super::DataArgument;

/// Serve until SIGINT or SIGTERM
///
/// Once it accepts connections it prints one line to stdout: `listening on http://ADDRESS`, or https.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    latlas-coordinator serve\n  \
    latlas-coordinator serve --listen 127.0.0.1:0 --data /srv/latlas\n  \
    latlas-coordinator serve --listen 0.0.0.0:8700 --tls-cert cert.pem --tls-key key.pem\n\n\
    LATLAS_LOG sets what is logged to stderr, e.g. LATLAS_LOG=debug.")]
pub struct Arguments {
    /// Address and port to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8700", value_parser = address)]
    listen: SocketAddr,
    #[command(flatten)]
    data: DataArgument,
    /// Serve over TLS with this certificate: a PEM file with the certificate first, then its chain
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The certificate's private key, a PEM file
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Require a client certificate of an authority in this PEM file, in addition to a token
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    client_ca: Option<PathBuf>,
    /// A proxy in front terminates TLS and sets X-Forwarded-For. Reads then need a token
    #[arg(long, conflicts_with = "tls_cert")]
    behind_proxy: bool,
    /// Listen on a public address without TLS: tokens and results cross the network in clear text. For a
    /// private network only. Reads then need a token
    #[arg(long)]
    insecure_public: bool,
    /// Sustained calls per second of one token; a burst may have four times as many
    #[arg(long, value_name = "N", default_value_t = 50,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
    /// Hours between two canaries of an agent: a few ops that show whether its box has become slow; 0 means
    /// never
    #[arg(long, value_name = "HOURS", default_value_t = 24, value_parser = clap::value_parser!(u16).range(..=8784))]
    canary_every: u16,
    /// Lease time: an agent that is silent for so long loses its tasks. Agents renew every ten seconds
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(12..=86_400))]
    lease_seconds: u32,
    /// A command that gets incidents as JSON on stdin: the last agent of a class is silent, an agent hangs, the
    /// farm quarantined an agent; and the end of each. `sh` runs it, for ten seconds at most
    #[arg(long, value_name = "COMMAND", env = "LATLAS_ALARM_COMMAND", hide_env_values = true)]
    alarm_command: Option<String>,
}

/// Opens a data directory and becomes its only server.
fn lock(path: &Path) -> Result<(DataDir, ServerLock), DataDirError> {
    let data = DataDir::open(path)?;
    let lock = data.lock_for_serving()?;
    Ok((data, lock))
}

#[derive(Debug, thiserror::Error)]
#[error("write an IP address and a port, such as 127.0.0.1:8700")]
struct NotAnAddress(#[from] AddrParseError);

fn address(text: &str) -> Result<SocketAddr, NotAnAddress> {
    Ok(text.parse()?)
}

pub async fn run(arguments: Arguments) -> Result<()> {
    let tls = check_exposure(&arguments)?;
    let Arguments {
        listen,
        data,
        behind_proxy,
        rate,
        canary_every,
        lease_seconds,
        alarm_command,
        ..
    } = arguments;
    let alarm_command = alarm_command.filter(|command| !command.trim().is_empty());
    // An existing directory is locked first, which shows whether it is in use. A missing directory is created only
    // after the listener works.
    let path = data.path()?;
    let existing = path.is_dir().then(|| lock(&path)).transpose()?;
    let listener =
        TcpListener::bind(listen).await.map_err(|cause| cannot_listen(listen, &cause))?;
    let (data, _lock) = existing.map_or_else(|| lock(&path), Ok)?;
    let every = SignedDuration::from_hours(canary_every.into());
    let canary_every = Some(every).filter(|every| !every.is_zero());
    let lease = SignedDuration::from_secs(lease_seconds.into());
    let policy = Policy { canary_every, lease, ..Policy::default() };
    let store = data.open_store_with(policy).await?;
    if !store.has_tokens().await? {
        tracing::info!(
            "nobody has a token yet: make one with `latlas-coordinator token create --role enroll --data {}` \
             for boxes, and with `--role researcher` for people",
            path.display()
        );
    }
    let settings = Settings {
        open_reads: listen.ip().is_loopback() && !behind_proxy,
        behind_proxy,
        rate: Rate::per_second(rate),
    };
    allow_many_connections();
    let app = App::new(store, settings);
    stop_on_signals(app.clone())?;
    let watching = tokio::spawn(alarm::watch(app.clone(), alarm_command));

    let mut stdout = io::stdout();
    let scheme = if tls.is_some() { "https" } else { "http" };
    writeln!(stdout, "listening on {scheme}://{}", listener.local_addr()?)?;
    stdout.flush()?;
    tracing::info!(database = %data.database().display(), "serving");
    latlas_coordinator::tell_manager(NotifyState::Ready);
    latlas_coordinator::serve(listener, tls, app).await?;
    watching.await?;
    tracing::info!("stopped");
    Ok(())
}

/// What others can reach is served over TLS, by this process or by a proxy, unless somebody says that the
/// network is closed.
fn check_exposure(arguments: &Arguments) -> Result<Option<Tls>> {
    let Arguments { listen, tls_cert, tls_key, client_ca, behind_proxy, insecure_public, .. } =
        arguments;
    if let (Some(certificates), Some(key)) = (tls_cert, tls_key) {
        return Ok(Some(Tls::load(certificates, key, client_ca.as_deref())?));
    }
    if listen.ip().is_loopback() || *behind_proxy || *insecure_public {
        return Ok(None);
    }
    Err(Usage(format!(
        "--listen {listen}: others can reach this address, and tokens would cross the network in clear. \
         Give --tls-cert and --tls-key; or say --behind-proxy if a proxy in front does TLS and nobody gets \
         around it; or say --insecure-public if the network is yours alone"
    )).into())
}

/// Each agent holds a connection or two, and many systems start a program with leave to open a thousand
/// files and to ask for more.
fn allow_many_connections() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let limit = getrlimit(Resource::Nofile);
        // If the system refuses, its default limit stays in force.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    }
}

fn cannot_listen(listen: SocketAddr, cause: &io::Error) -> anyhow::Error {
    let remedy = match cause.kind() {
        io::ErrorKind::AddrInUse => {
            "another program listens there: stop it, or choose another port"
        }
        io::ErrorKind::PermissionDenied => "choose a port from 1024 up",
        io::ErrorKind::AddrNotAvailable => "choose an address of this machine",
        _ => "choose another address",
    };
    anyhow!("can't listen on {listen} ({cause}): {remedy} with --listen")
}

/// The first signal asks for a stop that finishes what is under way; a second one ends the process as
/// signals usually do.
fn stop_on_signals(app: App) -> io::Result<()> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::spawn(async move {
            let name = tokio::select! {
                _ = interrupt.recv() => "SIGINT",
                _ = terminate.recv() => "SIGTERM",
            };
            tracing::info!("{name}: stopping");
            latlas_coordinator::tell_manager(NotifyState::Stopping);
            app.stop();
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            std::process::exit(1);
        });
    }
    #[cfg(not(unix))]
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            app.stop();
        }
    });
    Ok(())
}
