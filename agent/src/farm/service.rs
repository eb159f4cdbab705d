//! Integration with the service manager: signals that request a stop, and the watchdog. Without a service manager,
//! notifications have no effect.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Whether a stop was requested; clones share it.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Handles SIGTERM and SIGINT: the first signal requests a stop, the second ends the process.
    ///
    /// # Errors
    /// When the system refuses the handlers.
    pub fn on_signals() -> io::Result<Stop> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (sender, receiver) = watch::channel(false);
        // The task ends with the runtime.
        tokio::spawn(async move {
            let mut either = async || {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            };
            either().await;
            tracing::info!(
                "stopping: results are sent and the lease is given back, if the coordinator answers"
            );
            sender.send_replace(true);
            either().await;
            std::process::exit(1);
        });
        Ok(Stop(receiver))
    }

    /// Whether a stop was requested.
    pub fn asked(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until a stop is requested.
    pub async fn until_asked(&self) {
        // The sender lives as long as the runtime that waits here.
        let _ = self.0.clone().wait_for(|asked| *asked).await;
    }
}

/// Notifies the service manager, if there is one.
pub fn tell(state: NotifyState) {
    if let Err(e) = sd_notify::notify(&[state]) {
        tracing::debug!("the service manager could not be told: {e}");
    }
}

/// Counts the steps of the measuring thread for one lease. The watchdog is fed only while the count increases, and
/// heartbeats report it.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<AtomicU64>);

impl Progress {
    /// Counts one step.
    pub fn step(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// The number of steps so far.
    pub fn steps(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Feeds the watchdog if there was a step since `seen`, the number of steps at the last check.
    pub fn feed(&self, seen: &mut u64) {
        let now = self.steps();
        if std::mem::replace(seen, now) != now {
            tell(NotifyState::Watchdog);
        }
    }
}
