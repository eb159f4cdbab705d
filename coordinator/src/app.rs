//! The running coordinator: its parts together, and serving them until told to stop.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::http::{self, IndexCache};
use crate::store::Store;

/// How often leases are looked through for those that ran out.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// After a stop was asked for, connections have this long to finish what they are doing.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// What an operator decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Whether tables, lists and predictions are open to whoever can connect.
    pub open_reads: bool,
}

/// Where the time comes from: tests of what hours do need no hours.
struct Clock(Box<dyn Fn() -> Timestamp + Send + Sync>);

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// The parts that every handler may use; clones share them.
#[derive(Debug, Clone)]
pub struct App(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    store: Store,
    settings: Settings,
    clock: Clock,
    indexes: IndexCache,
    stop: CancellationToken,
}

impl App {
    /// A coordinator on this store.
    pub fn new(store: Store, settings: Settings) -> App {
        App::with_clock(store, settings, Timestamp::now)
    }

    /// The same by another clock.
    pub fn with_clock(
        store: Store,
        settings: Settings,
        clock: impl Fn() -> Timestamp + Send + Sync + 'static,
    ) -> App {
        App(Arc::new(Parts {
            store,
            settings,
            clock: Clock(Box::new(clock)),
            indexes: IndexCache::default(),
            stop: CancellationToken::new(),
        }))
    }

    /// What lasts.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// What time it is.
    pub fn now(&self) -> Timestamp {
        (self.0.clock.0)()
    }

    /// What the operator decided.
    pub fn settings(&self) -> Settings {
        self.0.settings
    }

    pub(crate) fn indexes(&self) -> &IndexCache {
        &self.0.indexes
    }

    /// Asks it to stop: long polls and streams end, other calls are finished, no new ones begin.
    pub fn stop(&self) {
        self.0.stop.cancel();
    }

    /// Whether it was asked to stop.
    pub fn is_stopping(&self) -> bool {
        self.0.stop.is_cancelled()
    }

    /// Waits until it is asked to stop.
    pub(crate) fn stopping(&self) -> impl Future<Output = ()> + Send + 'static {
        self.0.stop.clone().cancelled_owned()
    }
}

/// All routes, ready to be called: by [`serve`], or by tests without a network.
pub fn build_app(app: App) -> Router {
    http::router(app)
}

/// Serves until [`App::stop`] is called and what was under way is done, at most ten seconds later.
///
/// # Errors
/// When the listener or the store fails.
pub async fn serve(listener: TcpListener, app: App) -> anyhow::Result<()> {
    app.store().resume(app.now()).await?;
    let sweeper = tokio::spawn(sweep(app.clone()));
    let server = axum::serve(listener, build_app(app.clone()))
        .with_graceful_shutdown(app.stopping())
        .into_future();
    let too_late = async {
        app.stopping().await;
        tokio::time::sleep(STOP_WITHIN).await;
    };
    let served: io::Result<()> = tokio::select! {
        served = server => served,
        () = too_late => {
            tracing::warn!("some connections did not end in time and were cut off");
            Ok(())
        }
    };
    app.stop();
    sweeper.await?;
    if tokio::time::timeout(STOP_WITHIN, app.store().close()).await.is_err() {
        tracing::warn!("the database was still in use; the next start recovers it");
    }
    Ok(served?)
}

/// Takes back what dead agents hold, until the coordinator stops.
async fn sweep(app: App) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(SWEEP_EVERY) => {}
            () = app.stopping() => return,
        }
        if let Err(error) = app.store().sweep(app.now()).await {
            tracing::error!("leases could not be swept: {error}");
        }
    }
}
