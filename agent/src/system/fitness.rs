//! Fitness: whether a box should measure anything now. Pure.

use latlas_shared::Telemetry;

/// Limit in degrees Celsius. At this temperature a box has to cool down first: most processors and GPUs lower their
/// clocks by themselves between 90 and 105.
const HOTTEST: f64 = 95.0;

/// Throttle reasons that are settings of a person or of the product, and not a momentary state.
const SETTINGS: [&str; 4] =
    ["applications_clocks_setting", "display_clock_setting", "sync_boost", "sw_power_cap"];

/// The reason why a box should get no work now, if there is one. Call it while nothing is measured, so that the agent's
/// own work does not count. An unreadable sensor has no effect.
///
/// `busy_limit` is a share of time in percent, as in [`Telemetry::cpu_pressure`].
pub fn unfit(telemetry: &Telemetry, busy_limit: f64) -> Option<String> {
    if let Some(celsius) = telemetry.temperature_c.filter(|&celsius| celsius >= HOTTEST) {
        return Some(format!("it is too hot: {celsius:.0} degrees, and {HOTTEST:.0} is the limit"));
    }
    let held: Vec<&str> = telemetry
        .throttle
        .iter()
        .flatten()
        .map(String::as_str)
        .filter(|reason| !SETTINGS.contains(reason))
        .collect();
    if !held.is_empty() {
        return Some(format!("its clocks are held down: {}", held.join(", ")));
    }
    let pressure = telemetry.cpu_pressure.filter(|&pressure| pressure > busy_limit)?;
    Some(format!(
        "it is busy: tasks waited for a processor for {pressure:.0}% of the last ten seconds, and \
         {busy_limit:.0}% is the limit"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(change: impl FnOnce(&mut Telemetry)) -> Option<String> {
        let mut telemetry = Telemetry::default();
        change(&mut telemetry);
        unfit(&telemetry, 90.0)
    }

    #[test]
    fn a_box_that_is_hot_held_down_or_busy_is_unfit() {
        let throttle = |reasons: &[&str]| Some(reasons.iter().map(|r| (*r).to_owned()).collect());
        assert_eq!(of(|_| ()), None, "unknown is not unfit");
        assert_eq!(of(|t| t.temperature_c = Some(94.0)), None);
        assert!(of(|t| t.temperature_c = Some(95.4)).unwrap().contains("95 degrees"));
        assert_eq!(of(|t| t.throttle = throttle(&[])), None);
        assert_eq!(of(|t| t.throttle = throttle(&["sw_power_cap"])), None);
        let held = of(|t| t.throttle = throttle(&["sw_power_cap", "hw_thermal_slowdown"])).unwrap();
        assert_eq!(held, "its clocks are held down: hw_thermal_slowdown");
        assert_eq!(of(|t| t.cpu_pressure = Some(90.0)), None);
        assert!(of(|t| t.cpu_pressure = Some(97.2)).unwrap().contains("97% of the last"));
    }
}
