//! Sums over the ops of a network. Single predictions and bulk predictions use the same sums, and so get the same
//! numbers.

use latlas_shared::Calibration;

use super::calibration::{self, Features, Micros};
use crate::two_clock::{OpTimes, TwoClocks};

/// The cost of one op at one reuse distance, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct OpCost {
    /// Its latency.
    pub latency: f64,
    /// Its standard deviation.
    pub error: f64,
    /// The difference between its median and its quiet quantile.
    pub unquiet: f64,
    /// Times of host and device. On a processor, where issuing and running are the same, the host time is zero.
    pub clocks: OpTimes,
}

/// The sums so far, in running order.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sums {
    latency: f64,
    micros_per_mib: f64,
    unquiet: f64,
    squares: f64,
    /// Errors of the ops since the last change of row.
    same_row: f64,
    ops: f64,
    clocks: TwoClocks,
}

impl Sums {
    /// Adds one op. `same_row` says that its number is from the same row as the previous op's. Errors of different rows
    /// are independent; a row that is used for several consecutive ops has the same error for all of them.
    pub fn add(&mut self, cost: &OpCost, micros_per_mib: f64, same_row: bool) {
        self.latency += cost.latency;
        self.micros_per_mib += micros_per_mib;
        self.unquiet += cost.unquiet;
        if !same_row {
            self.squares += self.same_row.powi(2);
            self.same_row = 0.0;
        }
        self.same_row += cost.error;
        self.ops += 1.0;
        self.clocks.issue(cost.clocks);
    }

    /// Sum of the latencies of all ops.
    pub fn latency_micros(&self) -> f64 {
        self.latency
    }

    /// The input of a calibration.
    pub fn features(&self, merges: f64) -> Features {
        Features {
            ops_micros: self.clocks.finish(0.0),
            micros_per_mib: self.micros_per_mib,
            unquiet_micros: self.unquiet,
            ops: self.ops,
            merges,
            rows_error: (self.squares + self.same_row.powi(2)).sqrt() / self.latency,
        }
    }

    /// The latency of the network under a calibration.
    pub fn micros(&self, merges: f64, calibration: &Calibration) -> Micros {
        calibration::apply(calibration, &self.features(merges)).interval(calibration)
    }
}
