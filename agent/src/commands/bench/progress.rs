//! What `latlas-agent bench` says on stderr while it measures.

use std::cell::Cell;
use std::fmt;
use std::time::{Duration, Instant};

use latlas_shared::Telemetry;
use latlas_shared::words::count;

use crate::system::{busy, unfit};

/// The longest time without a line while a run goes on.
const SILENCE: Duration = Duration::from_secs(10);

/// The share of the time, in percent, from which a run mentions that tasks wait for a processor. A run with one thread
/// on a quiet box causes less.
const BUSY: f64 = 20.0;

/// The limit of a box that is never too busy.
const NEVER: f64 = 100.0;

/// Why a run ends before all is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// A person has stopped it.
    Stopped,
    /// Its time is over.
    TimeOver,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Ended::Stopped => "the run is stopped",
            Ended::TimeOver => "the time is over",
        })
    }
}

/// How far a run is.
pub(super) struct Progress {
    start: Instant,
    /// The last line.
    said: Cell<Instant>,
    visits: Cell<u64>,
    finished: Cell<usize>,
    total: usize,
    /// Whether it consists of visits, and not of sustained runs, which are announced by themselves.
    of_visits: bool,
}

impl Progress {
    /// A run that begins now.
    pub fn new(total: usize, of_visits: bool) -> Progress {
        let start = Instant::now();
        let (visits, finished) = (Cell::new(0), Cell::new(0));
        Progress { start, said: Cell::new(start), visits, finished, total, of_visits }
    }

    /// Number of jobs with an outcome.
    pub fn finished(&self) -> usize {
        self.finished.get()
    }

    /// Counts a visit. Prints a line if there was none for a while.
    pub fn visit(&self) {
        self.visits.set(self.visits.get() + 1);
        if self.of_visits && self.said.get().elapsed() >= SILENCE {
            eprintln!("{}", self.line(self.start.elapsed()));
            self.said.set(Instant::now());
        }
    }

    /// Counts and prints a row.
    pub fn row(&self, row: &str) {
        self.finished.set(self.finished.get() + 1);
        eprintln!("[{}/{}] {row}", self.finished.get(), self.total);
        self.said.set(Instant::now());
    }

    fn line(&self, elapsed: Duration) -> String {
        let (seconds, visits) = (elapsed.as_secs(), self.visits.get());
        format!("{seconds} s: {visits} visits, {} of {} done", self.finished.get(), self.total)
    }

    /// What has no row at the end.
    pub fn left(&self) -> String {
        let left = self.total - self.finished.get();
        match self.of_visits {
            true => {
                format!("{left} of {} had fewer than two visits, so they have no row", self.total)
            }
            false => {
                format!("{} not finished", count(left, "sustained run was", "sustained runs were"))
            }
        }
    }
}

/// Says if a box is in a state in which rows become wide. A host of a farm decides about it with `run --busy-limit`.
pub(super) fn say_if_busy(telemetry: &Telemetry, when: &str) {
    if let Some(state) = state(telemetry) {
        eprintln!("this box {when}: {state}. Rows may be wide, not_converged or degraded");
    }
}

fn state(telemetry: &Telemetry) -> Option<String> {
    unfit(telemetry, NEVER).or_else(|| {
        let busy = busy(telemetry, BUSY)?;
        let load = telemetry.load1.map_or_else(String::new, |load| format!(" (load {load})"));
        Some(busy + &load)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_says_how_far_it_is() {
        let progress = Progress::new(39, true);
        (0..140).for_each(|_| progress.visit());
        assert_eq!(progress.line(Duration::from_millis(10_400)), "10 s: 140 visits, 0 of 39 done");
        progress.row("a row");
        assert_eq!(progress.line(Duration::from_secs(20)), "20 s: 140 visits, 1 of 39 done");
        assert_eq!(progress.left(), "38 of 39 had fewer than two visits, so they have no row");
        let sustained = Progress::new(1, false);
        assert_eq!(sustained.left(), "1 sustained run was not finished");
    }

    #[test]
    fn a_box_that_is_not_quiet_is_described() {
        let of = |pressure: f64| {
            state(&Telemetry {
                cpu_pressure: Some(pressure),
                load1: Some(5.4),
                ..Telemetry::default()
            })
        };
        assert_eq!(of(20.0), None);
        let said = of(42.3).unwrap();
        assert_eq!(said, "tasks waited for a processor for 42% of ten seconds (load 5.4)");
        let hot = Telemetry { temperature_c: Some(96.0), ..Telemetry::default() };
        assert!(state(&hot).unwrap().contains("too hot"));
        assert_eq!(state(&Telemetry::default()), None, "unknown is quiet");
    }
}
