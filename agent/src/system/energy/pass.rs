//! One energy pass: the sensor is read while nothing runs, while one op runs repeatedly, and while nothing runs again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use latlas_shared::Energy;
use nix::time::{ClockId, clock_gettime};

use super::Meter;
use super::account::{self, Busy, Look, Tick};

/// The largest relative difference of a meter's two methods that a row does not mention.
const MOST_DISAGREEMENT: f64 = 0.1;

/// Times of a pass.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Time between two readings.
    pub poll: Duration,
    /// The shortest window, in seconds.
    pub least_window: f64,
    /// The longest window. The sensor's ticks decide between the two.
    pub most_window: f64,
    /// Fewest ticks of a window, if time allows: the error is one tick divided by the window.
    pub ticks: f64,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan { poll: Duration::from_millis(5), least_window: 1.0, most_window: 10.0, ticks: 50.0 }
    }
}

impl Plan {
    /// The window for a sensor with this tick, in seconds.
    fn window(&self, tick: Tick) -> f64 {
        (self.ticks * tick.seconds).clamp(self.least_window, self.most_window)
    }
}

/// The clock of readings and windows: seconds since a moment in the past that is the same for all processes of this
/// box.
pub fn monotonic_seconds() -> f64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("Linux always has this clock");
    Duration::from(time).as_secs_f64()
}

/// Measures the energy of one call. `work` makes calls for the given number of seconds and returns their times.
/// Readings outside these times do not count.
///
/// None if the readings are not sufficient; the log has the reason.
///
/// # Errors
/// The errors of `work`.
pub fn run(
    meter: &mut dyn Meter,
    plan: &Plan,
    work: impl FnOnce(f64) -> Result<Option<Busy>>,
) -> Result<Option<Energy>> {
    let before = match meter.tick() {
        Some(tick) => idle(meter, plan, plan.window(tick) / 2.0),
        None => watch(meter, plan),
    };
    let Some(tick) = meter.tick() else {
        tracing::warn!("no energy: {}: its updates were not seen", meter.source());
        return Ok(None);
    };
    let window = plan.window(tick);
    let (looks, busy) = while_working(meter, plan.poll, || work(window));
    let Some(busy) = busy? else { return Ok(None) };
    let after = idle(meter, plan, window / 2.0);
    match account::per_call(&looks, &[&before, &after], &busy, tick) {
        Ok(found) => Ok(Some(Energy {
            gross_mj: found.gross_mj,
            net_mj: found.net_mj,
            uncertainty_mj: found.uncertainty_mj,
            source: described(&*meter, &looks, &busy),
        })
        .filter(Energy::is_sound)),
        Err(reason) => {
            tracing::warn!("no energy: {}: {reason}", meter.source());
            Ok(None)
        }
    }
}

/// The name of the sensor, with the difference of its two methods if it is large.
fn described(meter: &dyn Meter, looks: &[Look], busy: &Busy) -> String {
    let source = meter.source();
    match account::disagreement(looks, busy).filter(|share| share.abs() > MOST_DISAGREEMENT) {
        Some(share) => {
            tracing::warn!("{source}: the power that it reports says {:+.0}%", 100.0 * share);
            format!("{source}, polled power {:+.0}%", 100.0 * share)
        }
        None => source,
    }
}

/// Reads a sensor once. A failed reading is skipped, and the others continue.
fn look(meter: &mut dyn Meter) -> Option<Look> {
    let at = monotonic_seconds();
    let joules = meter.joules(at)?;
    Some(Look { at, joules, second_joules: meter.second_joules(at) })
}

/// Readings while nothing runs.
fn idle(meter: &mut dyn Meter, plan: &Plan, seconds: f64) -> Vec<Look> {
    let end = monotonic_seconds() + seconds;
    let mut looks: Vec<Look> = look(meter).into_iter().collect();
    while monotonic_seconds() < end {
        thread::sleep(plan.poll);
        looks.extend(look(meter));
    }
    looks
}

/// Readings while nothing runs, until the update period is known.
fn watch(meter: &mut dyn Meter, plan: &Plan) -> Vec<Look> {
    let mut looks = vec![];
    let end = monotonic_seconds() + plan.most_window;
    loop {
        looks.extend(idle(meter, plan, plan.least_window / 2.0));
        let seen = meter.tick().map(|tick| plan.window(tick) / 2.0);
        let spanned =
            looks.last().zip(looks.first()).map_or(0.0, |(last, first)| last.at - first.at);
        if seen.is_some_and(|window| spanned >= window) || monotonic_seconds() >= end {
            return looks;
        }
    }
}

/// Readings from a thread of its own, while `work` runs in this one.
fn while_working<T>(
    meter: &mut dyn Meter,
    poll: Duration,
    work: impl FnOnce() -> T,
) -> (Vec<Look>, T) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut looks = vec![];
            while !done.load(Ordering::Relaxed) {
                looks.extend(look(meter));
                thread::sleep(poll);
            }
            looks
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        (reader.join().unwrap_or_default(), result)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    use crate::system::energy::{nvml, rapl};
    use crate::system::gpu::FakeGpu;
    use crate::system::tests::{unpacked, write};

    /// A plan for sensors that are faster than real ones. The longest window is for finding a period on a
    /// machine that is busy.
    fn quick() -> Plan {
        Plan { poll: Duration::from_millis(1), least_window: 0.3, most_window: 60.0, ticks: 20.0 }
    }

    /// Ten calls within the requested number of seconds, beginning now.
    fn ten_calls(start: f64, seconds: f64) -> Result<Option<Busy>> {
        let end = start + seconds;
        while monotonic_seconds() < end {
            thread::sleep(Duration::from_millis(1));
        }
        Ok(Some(Busy { calls: 10, start, end, others: None }))
    }

    const IDLE_WATTS: f64 = 10.0;
    const MORE_WATTS: f64 = 20.0;

    /// A meter of a simulated device whose counter is exact at every reading, however late.
    struct Device<M, F> {
        meter: M,
        /// Shows the energy drawn so far on the counter, in microjoules.
        show: F,
        opened: f64,
        /// When the device began to work and when it ends.
        worked: Arc<Mutex<(f64, f64)>>,
    }

    impl<M: Meter, F: FnMut(u64) + Send> Device<M, F> {
        fn new(meter: M, show: F) -> Device<M, F> {
            let worked = Arc::new(Mutex::new((f64::INFINITY, f64::INFINITY)));
            Device { meter, show, opened: monotonic_seconds(), worked }
        }

        /// A pass during whose calls the device works.
        fn pass(&mut self) -> Energy {
            let (worked, mut seconds_each) = (Arc::clone(&self.worked), 0.0);
            let energy = run(self, &quick(), |seconds| {
                let start = {
                    // Readings wait for this lock, so that no reading sees the work begin in the past.
                    let mut worked = worked.lock().unwrap();
                    let start = monotonic_seconds();
                    *worked = (start, start + seconds);
                    start
                };
                seconds_each = seconds / 10.0;
                ten_calls(start, seconds)
            });
            let energy = energy.unwrap().unwrap();
            let gross = 1e3 * (IDLE_WATTS + MORE_WATTS) * seconds_each;
            let net = 1e3 * MORE_WATTS * seconds_each;
            let slack = energy.uncertainty_mj + 0.25 * gross;
            assert!((energy.gross_mj - gross).abs() < slack, "{energy:?} for {gross}");
            assert!((energy.net_mj - net).abs() < slack, "{energy:?} for {net}");
            assert!(energy.is_sound() && energy.uncertainty_mj > 0.0);
            energy
        }
    }

    impl<M: Meter, F: FnMut(u64) + Send> Meter for Device<M, F> {
        fn source(&self) -> String {
            self.meter.source()
        }

        fn tick(&self) -> Option<Tick> {
            self.meter.tick()
        }

        fn joules(&mut self, at: f64) -> Option<f64> {
            let (from, to) = *self.worked.lock().unwrap();
            let working = (at.min(to) - from).max(0.0);
            let joules = (at - self.opened) * IDLE_WATTS + working * MORE_WATTS;
            (self.show)((joules * 1e6) as u64);
            self.meter.joules(at)
        }

        fn second_joules(&mut self, at: f64) -> Option<f64> {
            self.meter.second_joules(at)
        }
    }

    #[test]
    fn a_processor_s_counter_that_wraps_meanwhile() {
        let (dir, system) = unpacked("desktop-i7");
        let base = dir.path().join("sys/class/powercap/intel-rapl:0");
        // The counter wraps while the device works: the device draws 3 J in total when idle, and 9 J more at work.
        let (first, range) = (3_996_000_000, 4_000_000_000);
        write(&base.join("max_energy_range_uj"), &range.to_string());
        write(&base.join("energy_uj"), &first.to_string());
        let meter = rapl::open(&system.tree).unwrap();
        let counter = base.join("energy_uj");
        let show = move |uj: u64| write(&counter, &((first + uj) % range).to_string());
        assert_eq!(Device::new(meter, show).pass().source, "rapl package-0");
    }

    #[test]
    fn a_card_s_counter_whose_period_is_found_and_whose_power_disagrees() {
        let gpu = Arc::new(FakeGpu { power: Some(42_000), ..FakeGpu::default() });
        gpu.energy.store(1000, Ordering::Relaxed);
        let meter = nvml::open(gpu.clone()).unwrap();
        // Updated after every 200 mJ: about every twenty milliseconds at idle.
        let show = move |uj| gpu.energy.store(1000 + uj / 200_000 * 200, Ordering::Relaxed);
        let mut device = Device::new(meter, show);
        let source = device.pass().source;
        assert!(source.starts_with("nvml total energy, polled power +"), "{source}");
        assert!(device.tick().unwrap().seconds > 0.015);
    }

    #[test]
    fn a_counter_that_stands_still_gives_no_number() {
        let (_dir, system) = unpacked("desktop-i7");
        let mut meter = rapl::open(&system.tree).unwrap();
        let now = |seconds| ten_calls(monotonic_seconds(), seconds);
        assert_eq!(run(&mut meter, &quick(), now).unwrap(), None);
        let gpu = Arc::new(FakeGpu::default());
        gpu.energy.store(1000, Ordering::Relaxed);
        let mut meter = nvml::open(gpu).unwrap();
        let plan = Plan { most_window: 0.2, ..quick() };
        let result = run(&mut meter, &plan, |_| unreachable!("its tick is not known"));
        assert_eq!(result.unwrap(), None);
    }

    #[test]
    fn what_the_work_reports_is_passed_on() {
        let (_dir, system) = unpacked("desktop-i7");
        let mut meter = rapl::open(&system.tree).unwrap();
        assert_eq!(run(&mut meter, &quick(), |_| Ok(None)).unwrap(), None);
        let error = run(&mut meter, &quick(), |_| anyhow::bail!("the worker died")).unwrap_err();
        assert_eq!(error.to_string(), "the worker died");
    }
}
