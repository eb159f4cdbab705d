//! Serving until told to stop, and what a coordinator does in the background meanwhile.

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

/// How often leases are looked through for those that ran out, and what is kept in memory is written: a
/// crash loses when agents were last heard of in this time.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// What is derived follows the measurements at once, and when they come in a stream it pauses for this long
/// after each go, so that a row that several of them belong to is merged once for all of these.
const DERIVE_PAUSE: Duration = Duration::from_millis(200);

/// How often old versions of tables are looked through for those that are kept no longer.
const THIN_EVERY: Duration = Duration::from_secs(600);

/// After a go that failed, as on a full disk, the next one waits for so long.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// After the connections have ended, the database has this long: together with them, less than the ten
/// seconds after which a service manager may lose its patience.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// All routes, ready to be called: by [`serve`], or by tests without a network.
pub fn build_app(app: App) -> Router {
    http::router(app)
}

/// Serves, over TLS where that is given, until [`App::stop`] is called and what was under way is done, less
/// than ten seconds later.
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
        // So that whoever reads the file afterwards has it all. What takes longer follows at the next start.
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

/// Tells the service manager something, where there is one.
pub fn tell_manager(state: NotifyState) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::debug!("the service manager could not be notified: {}", Chain(&error));
    }
}

/// Takes back what dead agents hold and writes what is in memory, until the coordinator stops.
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
            // Only a sweep that worked feeds the watchdog: when the store hangs, the service manager
            // starts another server.
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

/// Lets tables follow the measurements, until the coordinator stops: also in the midst of many, since the
/// database knows how far it has got.
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

/// Drops versions of tables that are kept no longer, until the coordinator stops.
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
