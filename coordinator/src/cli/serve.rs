//! `latlas-coordinator serve`

use std::io::{self, Write};
use std::net::SocketAddr;

use anyhow::anyhow;
use clap::Args;
use jiff::SignedDuration;
use latlas_coordinator::lease::Policy;
use latlas_coordinator::{App, Settings};
use tokio::net::TcpListener;

use super::{DataArgument, Failure};

/// Serve until SIGINT or SIGTERM
///
/// Once it accepts connections it prints one line to stdout: `listening on http://ADDRESS`.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    latlas-coordinator serve\n  \
    latlas-coordinator serve --listen 127.0.0.1:0 --data /srv/latlas\n\n\
    RUST_LOG sets what is logged to stderr, e.g. RUST_LOG=debug.")]
pub struct Arguments {
    /// Address and port to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8700", value_parser = address)]
    listen: SocketAddr,
    #[command(flatten)]
    data: DataArgument,
    /// Listen on an address that others can reach although there is no TLS: tokens and results then
    /// cross the network in clear. Put a proxy with TLS in front instead where you can. Reading
    /// needs a token then
    #[arg(long)]
    insecure_public: bool,
    /// How long a box may be silent before its work is given to others. Boxes renew every ten seconds
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(12..=86_400))]
    lease_seconds: u32,
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "write an IP address and a port, such as 127.0.0.1:8700".to_owned())
}

pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { listen, data, insecure_public, lease_seconds } = arguments;
    let public = !listen.ip().is_loopback();
    if public && !insecure_public {
        return Err(Failure::Usage(format!(
            "--listen {listen}: others can reach this address, and tokens would cross the network in \
             clear. Listen on 127.0.0.1 with a TLS proxy in front, or say --insecure-public if the \
             network is yours alone"
        )));
    }
    let data = data.open()?;
    let _lock = data.lock_for_serving()?;
    let listener =
        TcpListener::bind(listen).await.map_err(|cause| cannot_listen(listen, &cause))?;
    let lease = SignedDuration::from_secs(lease_seconds.into());
    let store = data.open_store_with(Policy { lease, ..Policy::default() }).await?;
    if !store.has_tokens().await? {
        tracing::info!(
            "nobody has a token yet: make one with `latlas-coordinator token create --role enroll` for \
             boxes, and with `--role researcher` for people"
        );
    }
    let app = App::new(store, Settings { open_reads: !public });
    stop_on_signals(app.clone())?;

    let mut stdout = io::stdout();
    writeln!(stdout, "listening on http://{}", listener.local_addr()?)?;
    stdout.flush()?;
    tracing::info!(database = %data.database().display(), "serving");
    latlas_coordinator::serve(listener, app).await?;
    tracing::info!("stopped");
    Ok(())
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
