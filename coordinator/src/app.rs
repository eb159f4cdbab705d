//! The parts of a running coordinator together.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::limits::{Limits, Rate};
use crate::metrics::Metrics;
use crate::predictions::Predictions;
use crate::store::{Store, StoreError};
use crate::watched::Watched;

/// Settings that the operator chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Whether tables, lists and predictions can be read without a token.
    pub open_reads: bool,
    /// Whether a proxy in front reports the caller's address in `X-Forwarded-For`.
    pub behind_proxy: bool,
    /// The rate limit of one token.
    pub rate: Rate,
}

impl Default for Settings {
    /// The settings of a coordinator that only its own machine can reach.
    fn default() -> Settings {
        Settings { open_reads: true, behind_proxy: false, rate: Rate::default() }
    }
}

/// A replacement for the system clock, so that tests of rules about hours do not take hours.
struct GivenClock(Box<dyn Fn() -> Timestamp + Send + Sync>);

impl fmt::Debug for GivenClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GivenClock")
    }
}

/// The parts that every handler may use; clones share them.
#[derive(Debug, Clone)]
pub struct App(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    store: Store,
    settings: Settings,
    predictions: Predictions,
    watched: Watched,
    limits: Limits,
    clock: Clock,
    given_clock: Option<GivenClock>,
    metrics: Metrics,
    stop: CancellationToken,
}

impl App {
    /// A coordinator on this store.
    pub fn new(store: Store, settings: Settings) -> App {
        App::with(store, settings, None)
    }

    /// The same with another clock.
    pub fn with_clock(
        store: Store,
        settings: Settings,
        clock: impl Fn() -> Timestamp + Send + Sync + 'static,
    ) -> App {
        App::with(store, settings, Some(GivenClock(Box::new(clock))))
    }

    fn with(store: Store, settings: Settings, given_clock: Option<GivenClock>) -> App {
        App(Arc::new(Parts {
            store,
            settings,
            given_clock,
            predictions: Predictions::default(),
            watched: Watched::default(),
            limits: Limits::new(settings.rate),
            clock: Clock::new(Instant::now(), Timestamp::now()),
            metrics: Metrics::new(),
            stop: CancellationToken::new(),
        }))
    }

    /// The stored data.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// The operator's settings.
    pub fn settings(&self) -> Settings {
        self.0.settings
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// The time for everything that has a duration. It does not jump when the system's calendar is set.
    pub fn now(&self) -> Timestamp {
        match &self.0.given_clock {
            Some(GivenClock(clock)) => clock(),
            None => self.0.clock.at(Instant::now()),
        }
    }

    /// Follows the system's calendar. When the calendar has jumped, leases are shifted by the same amount, so that each
    /// lasts as long as before.
    pub(crate) async fn follow_calendar(
        &self,
        now: Instant,
        calendar: Timestamp,
    ) -> Result<(), StoreError> {
        let clock = &self.0.clock;
        let Some(jump) = clock.jump(now, calendar) else {
            clock.follow(now, calendar);
            return Ok(());
        };
        tracing::warn!(
            "the system's clock was set by {jump:#}: the deadlines of leases move with it"
        );
        // In this order a lease may seem longer for a moment, but never shorter.
        if jump.is_positive() {
            self.store().shift_leases(jump).await?;
            clock.follow(now, calendar);
        } else {
            clock.follow(now, calendar);
            self.store().shift_leases(jump).await?;
        }
        Ok(())
    }

    pub(crate) fn predictions(&self) -> &Predictions {
        &self.0.predictions
    }

    pub(crate) fn watched(&self) -> &Watched {
        &self.0.watched
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Requests a stop: long polls and streams end, other calls are finished, and no new calls begin.
    pub fn stop(&self) {
        self.0.stop.cancel();
    }

    /// Whether a stop was requested.
    pub fn is_stopping(&self) -> bool {
        self.0.stop.is_cancelled()
    }

    /// Waits until a stop is requested.
    pub(crate) fn stopping(&self) -> impl Future<Output = ()> + Send + 'static {
        self.0.stop.clone().cancelled_owned()
    }
}
