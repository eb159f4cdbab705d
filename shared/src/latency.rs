//! Latencies as a function of the reuse distance, and energy.

use serde::{Deserialize, Serialize};

/// One point of an op's reuse-distance curve. Times are microseconds of one call.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CurvePoint {
    /// Bytes of other memory that were touched between two calls.
    pub reuse_distance_bytes: u64,
    /// The quiet quantile: the 10th percentile of the samples, each of which is the mean of
    /// `calls_per_sample` calls.
    pub quiet_micros: f64,
    /// Lower end of the interval that a repetition of the measurement falls into 95% of the time.
    pub ci95_low_micros: f64,
    /// Upper end of it.
    pub ci95_high_micros: f64,
    /// The median of the same samples.
    pub median_micros: f64,
    /// Number of samples.
    pub samples: u32,
    /// Number of visits, spread over the run, that the samples come from.
    pub visits: u32,
    /// Calls that one sample is the mean of, with one wait for all of them: 1 on a processor, where it is left out,
    /// and a block on a GPU. Of visits with blocks of several lengths it is the longest.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub calls_per_sample: u32,
    /// On a GPU, the time of the host to issue the call, in microseconds; the quiet quantile.
    /// Null on a processor, where issuing and running are one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_micros: Option<f64>,
    /// Lower end of the 95% interval of `host_micros`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_ci95_low_micros: Option<f64>,
    /// Upper end of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_ci95_high_micros: Option<f64>,
}

fn one() -> u32 {
    1
}

fn is_one(n: &u32) -> bool {
    *n == 1
}

/// Energy of one call, in millijoule.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Energy {
    /// All that the sensor saw.
    pub gross_mj: f64,
    /// Without what the device draws when idle.
    pub net_mj: f64,
    /// About one tick of the sensor over the window, and the spread of the idle power.
    pub uncertainty_mj: f64,
    /// The sensor: `nvml`, `ina3221` or `rapl`, with its rails.
    pub source: String,
}

impl Energy {
    /// Whether it is what the type promises: finite, and more than nothing was drawn.
    pub fn is_sound(&self) -> bool {
        [self.gross_mj, self.net_mj, self.uncertainty_mj].iter().all(|mj| mj.is_finite())
            && self.gross_mj > 0.0
            && self.uncertainty_mj >= 0.0
    }
}

/// The share of the device's time from which on the host's time counts as what bounds an op.
pub const HOST_BOUND_SHARE: f64 = 0.9;

impl CurvePoint {
    /// Half the width of the 95% interval over the value.
    pub fn ci95_rel(&self) -> f64 {
        (self.ci95_high_micros - self.ci95_low_micros) / 2.0 / self.quiet_micros
    }

    /// Whether issuing the call takes as long as running it, on a GPU: called over and over, the device
    /// waits for the host.
    pub fn host_bound(&self) -> bool {
        self.host_micros.is_some_and(|host| host >= HOST_BOUND_SHARE * self.quiet_micros)
    }

    /// What one call costs, called over and over: on a GPU the larger of the host's and the device's
    /// time, as lower end, value and upper end of its interval.
    pub fn latency_micros(&self) -> (f64, f64, f64) {
        let (low, value, high) = self.host_interval().unwrap_or_default();
        (
            self.ci95_low_micros.max(low),
            self.quiet_micros.max(value),
            self.ci95_high_micros.max(high),
        )
    }

    /// The host's time as lower end, value and upper end of its interval; None on a processor.
    pub fn host_interval(&self) -> Option<(f64, f64, f64)> {
        let value = self.host_micros?;
        let end = |end: Option<f64>| end.unwrap_or(value);
        Some((end(self.host_ci95_low_micros), value, end(self.host_ci95_high_micros)))
    }

    /// The point with a host's time: lower end, value and upper end of its interval.
    pub fn with_host(self, interval: Option<(f64, f64, f64)>) -> CurvePoint {
        CurvePoint {
            host_ci95_low_micros: interval.map(|(low, _, _)| low),
            host_micros: interval.map(|(_, value, _)| value),
            host_ci95_high_micros: interval.map(|(_, _, high)| high),
            ..self
        }
    }
}

/// A latency as a function of the reuse distance.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Latency {
    /// Points in ascending order of their distance; never empty.
    pub curve: Vec<CurvePoint>,
}

/// No call takes longer, in microseconds (11 days): a number beyond it is damage, and sums of numbers
/// below it stay finite.
pub(crate) const LONGEST_MICROS: f64 = 1e12;

/// The most points of a curve.
const MOST_POINTS: usize = 64;

/// Why a curve cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CurveError {
    /// It has too many points.
    #[error("its curve has more than {MOST_POINTS} points")]
    TooLong,
    /// Its numbers contradict one another, or are none.
    #[error(
        "its latency is not sound: times are positive and finite, each lies inside its interval, and \
         distances ascend"
    )]
    Unsound,
    /// It was not measured where it is read.
    #[error("its curve has no point at {reference} bytes, where it is read")]
    NoPoint {
        /// The reuse distance at which it is read, in bytes.
        reference: u64,
    },
}

impl Latency {
    /// The point at a distance, if it was measured.
    pub fn at(&self, reuse_distance_bytes: u64) -> Option<&CurvePoint> {
        self.curve.iter().find(|point| point.reuse_distance_bytes == reuse_distance_bytes)
    }

    /// Whether the curve is what the type promises: finite positive times, ordered intervals and
    /// ascending distances.
    pub fn is_sound(&self) -> bool {
        let sound = |p: &CurvePoint| {
            let times = [p.ci95_low_micros, p.quiet_micros, p.ci95_high_micros, p.median_micros];
            times.iter().all(|t| t.is_finite() && *t > 0.0)
                && p.ci95_low_micros <= p.quiet_micros
                && p.quiet_micros <= p.ci95_high_micros
                && p.host_interval().is_none_or(|(low, value, high)| {
                    0.0 < low && low <= value && value <= high && high.is_finite()
                })
                && p.samples > 0
                && p.visits > 0
                && p.calls_per_sample > 0
        };
        !self.curve.is_empty()
            && self.curve.iter().all(sound)
            && self.curve.is_sorted_by(|a, b| a.reuse_distance_bytes < b.reuse_distance_bytes)
    }

    /// Checks a curve that came from elsewhere. `reference` is the distance at which it will be read.
    pub(crate) fn check(&self, reference: u64) -> Result<(), CurveError> {
        if self.curve.len() > MOST_POINTS {
            return Err(CurveError::TooLong);
        }
        let possible = |micros: f64| micros > 0.0 && micros <= LONGEST_MICROS;
        let bounded = self.curve.iter().all(|point| {
            let times = [point.ci95_high_micros, point.median_micros];
            times.into_iter().chain(point.host_interval().map(|(_, _, high)| high)).all(possible)
        });
        if !self.is_sound() || !bounded {
            return Err(CurveError::Unsound);
        }
        if self.at(reference).is_none() {
            return Err(CurveError::NoPoint { reference });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn point(device: f64, host: Option<f64>) -> CurvePoint {
        CurvePoint {
            ci95_low_micros: 0.95 * device,
            ci95_high_micros: 1.05 * device,
            median_micros: device,
            host_micros: host,
            ..testing::point(0, device)
        }
    }

    #[test]
    fn a_point_says_how_many_calls_a_sample_is_the_mean_of_unless_it_is_one() {
        let one = serde_json::to_value(point(100.0, None)).unwrap();
        assert_eq!(one.get("calls_per_sample"), None);
        assert_eq!(serde_json::from_value::<CurvePoint>(one).unwrap().calls_per_sample, 1);
        let block = CurvePoint { calls_per_sample: 8, ..point(100.0, None) };
        let text = serde_json::to_value(block).unwrap();
        assert_eq!(text["calls_per_sample"], 8);
        assert_eq!(serde_json::from_value::<CurvePoint>(text).unwrap(), block);
        let none = CurvePoint { calls_per_sample: 0, ..block };
        assert!(!Latency { curve: vec![none] }.is_sound());
    }

    #[test]
    fn an_op_costs_the_larger_of_its_two_times() {
        assert_eq!(point(100.0, None).latency_micros(), (95.0, 100.0, 105.0));
        assert_eq!(point(100.0, Some(10.0)).latency_micros(), (95.0, 100.0, 105.0));
        assert_eq!(point(100.0, Some(102.0)).latency_micros(), (102.0, 102.0, 105.0));
        assert_eq!(point(2.0, Some(10.0)).latency_micros(), (10.0, 10.0, 10.0));
    }

    #[test]
    fn the_interval_of_a_host_bound_op_is_that_of_its_host_time() {
        let of_host = |device| point(device, None).with_host(Some((9.0, 10.0, 12.0)));
        assert_eq!(of_host(2.0).latency_micros(), (9.0, 10.0, 12.0));
        assert_eq!(of_host(100.0).latency_micros(), (95.0, 100.0, 105.0));
        let backwards = point(2.0, None).with_host(Some((11.0, 10.0, 12.0)));
        assert!(!Latency { curve: vec![backwards] }.is_sound());
    }

    #[test]
    fn what_waits_for_the_host_is_host_bound() {
        assert!(!point(100.0, None).host_bound());
        assert!(!point(100.0, Some(80.0)).host_bound());
        assert!(point(100.0, Some(99.0)).host_bound());
        assert!(point(2.0, Some(10.0)).host_bound());
    }

    #[test]
    fn a_host_time_is_a_time() {
        let sound = |host| Latency { curve: vec![point(5.0, host)] }.is_sound();
        assert!(sound(None) && sound(Some(3.0)));
        assert!(!sound(Some(0.0)) && !sound(Some(-1.0)) && !sound(Some(f64::NAN)));
    }
}
