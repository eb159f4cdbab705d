//! The card's own counter of all energy since its driver was loaded (Volta and later).
//!
//! Its update period differs by card, from 20 to 100 ms, so the period is learned from the readings. The power that the
//! card reports is integrated as a second method: at idle, differences of 40% between the two have been observed.

use std::sync::Arc;

use super::account::Tick;
use super::updates::Updates;
use super::{Integral, Meter};
use crate::system::gpu::Gpu;

/// The counter of one card.
#[derive(Debug)]
pub struct NvmlMeter {
    gpu: Arc<dyn Gpu>,
    /// The counter at the time of opening, in millijoules.
    start: u64,
    updates: Updates,
    polled: Integral,
}

/// Opens the counter; None if the card has none.
pub fn open(gpu: Arc<dyn Gpu>) -> Option<NvmlMeter> {
    let start = gpu.energy_millijoules()?;
    Some(NvmlMeter { gpu, start, updates: Updates::default(), polled: Integral::default() })
}

impl Meter for NvmlMeter {
    fn source(&self) -> String {
        "nvml total energy".to_owned()
    }

    fn tick(&self) -> Option<Tick> {
        Some(Tick { seconds: self.updates.period()?, joules: 1e-3 })
    }

    fn joules(&mut self, now: f64) -> Option<f64> {
        // Less than at the start: the driver was reloaded, and the earlier energy is lost.
        let millijoules = self.gpu.energy_millijoules()?.checked_sub(self.start)? as f64;
        self.updates.see(now, millijoules);
        Some(millijoules * 1e-3)
    }

    fn second_joules(&mut self, now: f64) -> Option<f64> {
        let watts = f64::from(self.gpu.power_milliwatts()?) * 1e-3;
        Some(self.polled.add(now, watts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::gpu::FakeGpu;
    use std::sync::atomic::Ordering;

    #[test]
    fn the_counter_and_the_polled_power_are_told_apart() {
        let gpu = Arc::new(FakeGpu { power: Some(70_000), ..FakeGpu::default() });
        gpu.energy.store(5_000, Ordering::Relaxed);
        let mut meter = open(gpu.clone()).unwrap();
        assert_eq!(meter.second_joules(1.0), Some(0.0));
        gpu.energy.store(55_000, Ordering::Relaxed);
        assert_eq!(meter.joules(2.0), Some(50.0));
        assert_eq!(meter.second_joules(2.0), Some(70.0));
        gpu.energy.store(10, Ordering::Relaxed);
        assert_eq!(meter.joules(3.0), None);
    }

    #[test]
    fn a_card_without_a_counter_has_no_meter() {
        assert!(open(Arc::new(FakeGpu::default())).is_none());
    }
}
