//! Serves until a stop is requested, and runs the coordinator's background tasks.

use std::time::{Duration, Instant};

use axum::Router;
use jiff::Timestamp;
use sd_notify::NotifyState;
use tokio::net::TcpListener;

use crate::app::App;
use crate::chain::Chain;
use crate::http;
use crate::server::{self, Bounds};
use crate::tls::Tls;

/// How often expired leases are swept and in-memory notes are written. A crash loses the times at which agents were
/// last heard of within this period.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// Derived data is updated at once after a measurement. In a stream of measurements the update pauses for this long
/// after each run, so that a row with several new measurements is merged once for all of them.
const DERIVE_PAUSE: Duration = Duration::from_millis(200);

/// How often old versions of tables are dropped.
const THIN_EVERY: Duration = Duration::from_secs(600);

/// The wait after a failed run, for example on a full disk.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// The time limit for the database after the connections have ended. Together with their limit, it is below the ten
/// seconds after which a service manager may kill the process.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// All routes, ready to be called by [`serve`], or by tests without a network.
pub fn build_app(app: App) -> Router {
    http::router(app)
}

/// Serves, with TLS if configured, until [`App::stop`] is called and running calls have ended, less than ten seconds
/// later.
///
/// # Errors
/// When the store fails.
pub async fn serve(listener: TcpListener, tls: Option<Tls>, app: App) -> anyhow::Result<()> {
    app.store().resume(app.now()).await?;
    let sweeper = tokio::spawn(sweep(app.clone()));
    let deriver = tokio::spawn(derive(app.clone()));
    let thinner = tokio::spawn(thin(app.clone()));
    let router = build_app(app.clone());
    if !server::run(listener, tls, router, app.stopping(), Bounds::default()).await {
        tracing::warn!("some connections did not end in time and were closed");
    }
    app.stop();
    sweeper.await?;
    deriver.await?;
    thinner.await?;
    let closing = async {
        if let Err(error) = app.store().write_notes().await {
            tracing::warn!(
                "the last signs of life of agents and tokens could not be written: {}",
                Chain(&error)
            );
        }
        // A reader of the file then finds all derived data. The rest is updated at the next start.
        match tokio::time::timeout(CLOSE_WITHIN / 2, app.store().derive()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!("some rows stay stale until the next start: {}", Chain(&error))
            }
            Err(_) => tracing::warn!(
                "some rows stay stale until the next start: there was no time to merge them"
            ),
        }
        app.store().close().await;
    };
    if tokio::time::timeout(CLOSE_WITHIN, closing).await.is_err() {
        tracing::warn!("the database was still in use; the next start recovers it");
    }
    Ok(())
}

/// Notifies the service manager, if there is one.
pub fn tell_manager(state: NotifyState) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::debug!("the service manager could not be notified: {}", Chain(&error));
    }
}

/// Ends the leases of dead agents and writes in-memory notes, until the coordinator stops.
async fn sweep(app: App) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(SWEEP_EVERY) => {}
            () = app.stopping() => return,
        }
        if let Err(error) = app.follow_calendar(Instant::now(), Timestamp::now()).await {
            tracing::error!(
                "the deadlines of leases could not be moved with the system's clock: {}",
                Chain(&error)
            );
            continue;
        }
        match app.store().sweep(app.now()).await {
            // Only a successful sweep feeds the watchdog: if the store hangs, the service manager starts another
            // server.
            Ok(()) => tell_manager(NotifyState::Watchdog),
            Err(error) => tracing::error!("expired leases could not be ended: {}", Chain(&error)),
        }
        if let Err(error) = app.store().write_notes().await {
            tracing::error!(
                "the last signs of life of agents and tokens could not be written: {}",
                Chain(&error)
            );
        }
    }
}

/// Updates derived data after measurements, until the coordinator stops. It may stop in the middle, since the database
/// records the progress.
pub(crate) async fn derive(app: App) {
    let following = async {
        let mut progress = app.store().progress();
        if let Err(error) = app.store().retry_unreadable().await {
            tracing::warn!(
                "unreadable measurements will be retried at the next start only: {}",
                Chain(&error)
            );
        }
        loop {
            progress.mark_unchanged();
            if let Err(error) = app.store().derive().await {
                tracing::error!(
                    "new measurements could not be merged into rows: {}",
                    Chain(&error)
                );
                tokio::time::sleep(RETRY_AFTER).await;
                continue;
            }
            tokio::time::sleep(DERIVE_PAUSE).await;
            // The sender lives as long as the store.
            progress.changed().await.ok();
        }
    };
    tokio::select! {
        () = following => {}
        () = app.stopping() => {}
    }
}

/// Drops old versions of tables, until the coordinator stops.
async fn thin(app: App) {
    loop {
        match app.store().thin_versions(app.now()).await {
            Ok(0) => {}
            Ok(dropped) => tracing::info!("{dropped} old versions of tables were dropped"),
            Err(error) => tracing::error!("old versions could not be dropped: {}", Chain(&error)),
        }
        tokio::select! {
            () = tokio::time::sleep(THIN_EVERY) => {}
            () = app.stopping() => return,
        }
    }
}
