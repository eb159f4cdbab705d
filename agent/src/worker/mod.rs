//! The worker: the process that runs ops and reads the clock. It is a process of its own so that an
//! abort, a hang or an out-of-memory kill costs one row, and so that threads and allocator are set
//! before libtorch starts.

mod cpu;
mod process;
mod protocol;
mod ready;

use std::io::{self, BufRead, Write};

use anyhow::{Context, Result};
use latlas_shared::Allocator;

pub use cpu::allowed_cpus;
pub use process::{Fault, WorkerProcess};
pub use protocol::{Pass, Work};

use protocol::{Reply, VisitRequest};
use ready::Pantry;

/// What a worker is started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerSettings {
    /// Intra-op threads.
    pub threads: u32,
    /// Allocator policy.
    pub allocator: Allocator,
    /// The largest reuse distance that will be asked for, in bytes.
    pub largest_reuse_distance: u64,
    /// Bytes of memory that weights and activations of one piece of work may need.
    pub memory_limit: u64,
}

/// The worker's main loop: answers requests on standard input until it closes.
///
/// # Errors
/// When the settings cannot be applied, or the agent has gone.
pub fn serve(settings: &WorkerSettings) -> Result<()> {
    cpu::apply(settings)?;
    let _no_grad = tch::no_grad_guard();
    let mut pantry = Pantry::new(settings);
    let mut out = io::stdout().lock();
    send(&mut out, &Reply::Ready)?;
    for line in io::stdin().lock().lines() {
        let request: VisitRequest =
            serde_json::from_str(&line.context("reading a request")?).context("a request")?;
        let reply = match pantry.visit(&request) {
            Ok(micros) => Reply::Visited { micros },
            Err(e) => Reply::Refused { reason: format!("{e:#}") },
        };
        send(&mut out, &reply)?;
    }
    Ok(())
}

fn send(out: &mut impl Write, reply: &Reply) -> Result<()> {
    serde_json::to_writer(&mut *out, reply)?;
    out.write_all(b"\n")?;
    out.flush().context("the agent has gone")
}
