//! The state of a box around a measurement.

use serde::{Deserialize, Serialize};

/// The state of the box around a measurement; null where it could not be read.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    /// Mean load over one minute.
    pub load1: Option<f64>,
    /// Lowest current frequency of the processors, in kHz.
    pub khz: Option<u64>,
    /// Hottest sensor, in degrees Celsius.
    pub temperature_c: Option<f64>,
    /// Share of the last ten seconds, 0 to 100, in which some task waited for a processor (PSI).
    pub cpu_pressure: Option<f64>,
    /// Clock of the GPU, in MHz.
    pub gpu_mhz: Option<u32>,
    /// Clock of the GPU's memory, or of the external memory controller, in MHz.
    pub memory_mhz: Option<u32>,
    /// Why clocks are held down; empty when they are not, null when unknown.
    pub throttle: Option<Vec<String>>,
}

impl Telemetry {
    /// The worst of two states: what either could not read is taken from the other.
    pub fn worst(self, other: Telemetry) -> Telemetry {
        fn most(a: Option<f64>, b: Option<f64>) -> Option<f64> {
            a.into_iter().chain(b).max_by(f64::total_cmp)
        }
        fn least<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
            a.into_iter().chain(b).min()
        }
        let throttle = match (self.throttle, other.throttle) {
            (Some(mut reasons), Some(more)) => {
                reasons.extend(more);
                reasons.sort_unstable();
                reasons.dedup();
                Some(reasons)
            }
            (one, other) => one.or(other),
        };
        Telemetry {
            load1: most(self.load1, other.load1),
            khz: least(self.khz, other.khz),
            temperature_c: most(self.temperature_c, other.temperature_c),
            cpu_pressure: most(self.cpu_pressure, other.cpu_pressure),
            gpu_mhz: least(self.gpu_mhz, other.gpu_mhz),
            memory_mhz: least(self.memory_mhz, other.memory_mhz),
            throttle,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn telemetry() -> impl Strategy<Value = Telemetry> {
        let throttle = prop::option::of(prop::collection::btree_set("[ab]", 0..2));
        let floats = || prop::option::of(0.0f64..100.0);
        let ints = || prop::option::of(1u32..100);
        (floats(), floats(), floats(), ints(), ints(), throttle).prop_map(
            |(load1, temperature_c, cpu_pressure, gpu_mhz, memory_mhz, throttle)| Telemetry {
                load1,
                khz: gpu_mhz.map(u64::from),
                temperature_c,
                cpu_pressure,
                gpu_mhz,
                memory_mhz,
                throttle: throttle.map(|reasons| reasons.into_iter().collect()),
            },
        )
    }

    proptest! {
        #[test]
        fn the_worst_state_does_not_depend_on_the_order(
            a in telemetry(), b in telemetry(), c in telemetry(),
        ) {
            prop_assert_eq!(a.clone().worst(b.clone()), b.clone().worst(a.clone()));
            let left = a.clone().worst(b.clone()).worst(c.clone());
            prop_assert_eq!(left, a.clone().worst(b.worst(c)));
            prop_assert_eq!(a.clone().worst(a.clone()), a.clone());
            prop_assert_eq!(a.clone().worst(Telemetry::default()), a);
        }
    }
}
