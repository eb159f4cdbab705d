//! Progress of a request on stderr: a bar on a terminal, otherwise a line at intervals.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use latlas_client::Display;
use latlas_client::attendance::tasks;
use latlas_shared::api::RequestStatus;

/// Time between two lines if there is no terminal.
const BETWEEN_LINES: Duration = Duration::from_secs(15);

pub(crate) enum ProgressDisplay {
    Bar(ProgressBar),
    Lines { said: Option<(Instant, u32)> },
}

impl ProgressDisplay {
    pub(crate) fn new() -> ProgressDisplay {
        if !std::io::stderr().is_terminal() {
            return ProgressDisplay::Lines { said: None };
        }
        let template = "{bar:32} {pos} of {len}  {msg}  {elapsed} so far, about {eta} to go";
        let style =
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(0).with_style(style);
        bar.enable_steady_tick(Duration::from_millis(500));
        ProgressDisplay::Bar(bar)
    }

    /// Removes the bar.
    pub(crate) fn clear(&self) {
        if let ProgressDisplay::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

impl Display for ProgressDisplay {
    fn show(&mut self, status: &RequestStatus) {
        let settled = status.done + status.failed;
        match self {
            ProgressDisplay::Bar(bar) => {
                bar.set_length(u64::from(status.total));
                bar.set_position(u64::from(settled));
                bar.set_message(tasks(status));
            }
            ProgressDisplay::Lines { said } => {
                let due = said.is_none_or(|(when, what)| {
                    what != settled && (when.elapsed() >= BETWEEN_LINES || status.is_finished())
                });
                if due {
                    *said = Some((Instant::now(), settled));
                    eprintln!("{settled} of {}  {}", status.total, tasks(status));
                }
            }
        }
    }

    /// Prints a line without disturbing the bar.
    fn say(&mut self, text: &str) {
        match self {
            ProgressDisplay::Bar(bar) => bar.suspend(|| eprintln!("{text}")),
            ProgressDisplay::Lines { .. } => eprintln!("{text}"),
        }
    }
}
