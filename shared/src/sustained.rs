//! Sustained runs: a network that runs for minutes without a pause. A device that is cooled badly becomes slower as it
//! heats up, and the usual measurements, with their pauses, do not show it.

use serde::{Deserialize, Serialize};

use crate::latency::LONGEST_MICROS;

/// The largest factor between the two latencies of a run: a larger one is damage.
const MOST_RATIO: f64 = 1e3;

/// The latency of a network at both ends of a sustained run.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sustained {
    /// How long the network was to run, in seconds.
    pub seconds: u32,
    /// The median call time of the first 10 seconds, in microseconds.
    pub burst_micros: f64,
    /// The median call time of the last tenth of the run, in microseconds.
    pub sustained_micros: f64,
}

impl Sustained {
    /// The latency at the end over that at the beginning.
    pub fn over_burst(&self) -> f64 {
        self.sustained_micros / self.burst_micros
    }

    /// Whether its numbers are possible.
    pub fn is_sound(&self) -> bool {
        let possible = |micros: f64| micros > 0.0 && micros <= LONGEST_MICROS;
        possible(self.burst_micros)
            && possible(self.sustained_micros)
            && is_possible_ratio(self.over_burst())
    }
}

/// How much slower a class of device is after a sustained run.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SustainedOverBurst {
    /// The latency at the end of a run over that at its beginning: the median over the networks.
    pub over_burst: f64,
    /// Number of networks.
    pub networks: u32,
    /// The duration of their runs, in seconds.
    pub seconds: u32,
}

impl SustainedOverBurst {
    /// Whether its numbers are possible.
    pub fn is_sound(&self) -> bool {
        is_possible_ratio(self.over_burst) && self.networks > 0
    }
}

fn is_possible_ratio(ratio: f64) -> bool {
    (1.0 / MOST_RATIO..=MOST_RATIO).contains(&ratio)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_numbers_are_told() {
        let sound = |burst_micros, sustained_micros| {
            Sustained { seconds: 600, burst_micros, sustained_micros }.is_sound()
        };
        assert!(sound(100.0, 130.0) && sound(100.0, 99.0));
        for (burst, sustained) in [
            (0.0, 1.0),
            (1.0, 0.0),
            (-1.0, -1.0),
            (f64::NAN, 1.0),
            (1.0, f64::INFINITY),
            (1e13, 1e13),
            (1e-308, 1e12),
            (1.0, 2000.0),
        ] {
            assert!(!sound(burst, sustained), "{burst} {sustained}");
        }
    }
}
