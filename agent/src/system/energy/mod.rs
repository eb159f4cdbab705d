//! The energy of one call: sensors, a pass that reads them while an op runs repeatedly, and the arithmetic from
//! readings to millijoules. See `docs/energy.md`.

mod account;
mod ina3221;
mod nvml;
mod pass;
mod rapl;
mod updates;

use std::io;

use latlas_shared::Device;

pub use account::Busy;
use account::Tick;
pub use pass::{Plan, monotonic_seconds, run};

use super::System;

/// A sensor of the energy since it was opened.
pub trait Meter: Send {
    /// The published name of the sensor and its rails: `ina3221 VDD_IN`.
    fn source(&self) -> String;

    /// Its resolution; None while unknown. A sensor whose update period is not documented learns it from its readings.
    fn tick(&self) -> Option<Tick>;

    /// Joules since it was opened; None if it cannot be read now. `now` is the monotonic clock in seconds, which never
    /// decreases from call to call. A sensor of power is integrated over it.
    fn joules(&mut self, now: f64) -> Option<f64>;

    /// The same by a second method, read right after [`Meter::joules`].
    fn second_joules(&mut self, _now: f64) -> Option<f64> {
        None
    }
}

/// The reason why no energy sensor can be read.
#[derive(Debug, thiserror::Error)]
pub enum NoMeter {
    /// The kernel shows the counter to root alone.
    #[error("RAPL needs root: /{path}")]
    NeedsRoot {
        /// The counter's file below the root.
        path: String,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
    /// The counter cannot be read for another reason.
    #[error("RAPL is unreadable: /{path}")]
    Unreadable {
        /// The counter's file below the root.
        path: String,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
    /// A file does not contain a number.
    #[error("RAPL does not give numbers below /{dir}")]
    NoNumbers {
        /// The directory below the root.
        dir: String,
    },
    /// There is no package counter.
    #[error("the processor's energy counter (RAPL) is not there, as in most virtual machines")]
    NoRapl,
    /// Neither the card nor the board has a counter.
    #[error("the GPU has no energy counter that can be read")]
    GpuWithoutCounter,
}

impl System {
    /// The sensor for ops on `device`: the card's own counter for a GPU, the processor's counter for a CPU, and on a
    /// Jetson the board's power monitor for both.
    ///
    /// # Errors
    /// When no sensor can be read.
    pub fn meter(&self, device: Device) -> Result<Box<dyn Meter>, NoMeter> {
        let board = ina3221::open(&self.tree);
        match device {
            Device::Cpu => match (rapl::open(&self.tree), board) {
                (Ok(meter), _) => Ok(Box::new(meter)),
                (Err(_), Some(meter)) => Ok(Box::new(meter)),
                (Err(reason), None) => Err(reason),
            },
            Device::Cuda(_) => match (self.gpu.clone().and_then(nvml::open), board) {
                (Some(meter), _) => Ok(Box::new(meter)),
                (None, Some(meter)) => Ok(Box::new(meter)),
                (None, None) => Err(NoMeter::GpuWithoutCounter),
            },
        }
    }
}

/// Integrates readings of a power by the trapezoidal rule.
#[derive(Debug, Default)]
struct Integral {
    joules: f64,
    last: Option<(f64, f64)>,
}

impl Integral {
    /// Adds the power `watts` at `now`. Returns the energy so far, in joules.
    fn add(&mut self, now: f64, watts: f64) -> f64 {
        if let Some((before, power)) = self.last {
            self.joules += (now - before).max(0.0) * (power + watts) / 2.0;
        }
        self.last = Some((now, watts));
        self.joules
    }
}
