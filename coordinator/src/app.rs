//! The running coordinator: its parts together, and serving them until told to stop.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::http::{self, IndexCache};
use crate::limits::{Limits, Rate};
use crate::server::{self, Bounds};
use crate::store::Store;
use crate::tls::Tls;

/// How often leases are looked through for those that ran out.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// After everything else has ended, the database has this long to be closed.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);

/// What an operator decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Whether tables, lists and predictions are open to whoever can connect.
    pub open_reads: bool,
    /// Whether a proxy in front says in `X-Forwarded-For` where a call comes from.
    pub behind_proxy: bool,
    /// How often one token may call.
    pub rate: Rate,
}

impl Default for Settings {
    /// Those of a coordinator that only its own machine can reach.
    fn default() -> Settings {
        Settings { open_reads: true, behind_proxy: false, rate: Rate::default() }
    }
}

/// The parts that every handler may use; clones share them.
#[derive(Debug, Clone)]
pub struct App(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    store: Store,
    settings: Settings,
    indexes: IndexCache,
    limits: Limits,
    stop: CancellationToken,
}

impl App {
    /// A coordinator on this store.
    pub fn new(store: Store, settings: Settings) -> App {
        App(Arc::new(Parts {
            store,
            settings,
            indexes: IndexCache::default(),
            limits: Limits::new(settings.rate),
            stop: CancellationToken::new(),
        }))
    }

    /// What lasts.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// What the operator decided.
    pub fn settings(&self) -> Settings {
        self.0.settings
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.0.limits
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

/// Serves, over TLS where that is given, until [`App::stop`] is called and what was under way is done, at
/// most ten seconds later.
///
/// # Errors
/// When the store fails.
pub async fn serve(listener: TcpListener, tls: Option<Tls>, app: App) -> anyhow::Result<()> {
    app.store().resume(Timestamp::now()).await?;
    let sweeper = tokio::spawn(sweep(app.clone()));
    let router = build_app(app.clone());
    if !server::run(listener, tls, router, app.stopping(), Bounds::default()).await {
        tracing::warn!("some connections did not end in time and were cut off");
    }
    app.stop();
    sweeper.await?;
    if tokio::time::timeout(CLOSE_WITHIN, app.store().close()).await.is_err() {
        tracing::warn!("the database was still in use; the next start recovers it");
    }
    Ok(())
}

/// Takes back what dead agents hold, until the coordinator stops.
async fn sweep(app: App) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(SWEEP_EVERY) => {}
            () = app.stopping() => return,
        }
        if let Err(error) = app.store().sweep(Timestamp::now()).await {
            tracing::error!("leases could not be swept: {error}");
        }
        if let Err(error) = app.store().note_uses().await {
            tracing::error!("the uses of tokens could not be noted: {error}");
        }
    }
}
