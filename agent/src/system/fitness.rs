//! Fitness: whether a box should measure anything now. Pure.

use std::str::FromStr;

use jiff::civil::Time;
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
    let busy = busy(telemetry, busy_limit)?;
    Some(format!("it is busy: {busy}, and {busy_limit:.0}% is the limit (--busy-limit)"))
}

/// How busy a box is, if tasks waited for a processor during more than this share of the time, in percent.
pub fn busy(telemetry: &Telemetry, limit: f64) -> Option<String> {
    let pressure = telemetry.cpu_pressure.filter(|&pressure| pressure > limit)?;
    Some(format!("tasks waited for a processor for {pressure:.0}% of ten seconds"))
}

/// The hours of a day in which a box works, in its local time: from the first to the second, past midnight where the
/// second is earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hours {
    from: Time,
    to: Time,
}

/// Text that names no hours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("hours are written as FROM-TO, such as 20:00-06:30, and FROM is not TO")]
pub struct NotHours;

impl FromStr for Hours {
    type Err = NotHours;

    fn from_str(text: &str) -> Result<Hours, NotHours> {
        let time = |text: &str| {
            let (hour, minute) = text.split_once(':').unwrap_or((text, "0"));
            Time::new(hour.parse().ok()?, minute.parse().ok()?, 0, 0).ok()
        };
        let (from, to) = text.split_once('-').ok_or(NotHours)?;
        match (time(from), time(to)) {
            (Some(from), Some(to)) if from != to => Ok(Hours { from, to }),
            _ => Err(NotHours),
        }
    }
}

impl Hours {
    /// The reason why a box with these hours should get no work at a time, if there is one.
    pub fn unfit(self, now: Time) -> Option<String> {
        let Hours { from, to } = self;
        let within = if from < to { (from..to).contains(&now) } else { now >= from || now < to };
        (!within).then(|| {
            let [from, to] = [from, to].map(|time| time.strftime("%H:%M").to_string());
            format!("it works from {from} to {to} only, by its local time")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outside(hours: &str, at: &str) -> bool {
        let hours: Hours = hours.parse().unwrap();
        hours.unfit(at.parse().unwrap()).is_some()
    }

    #[test]
    fn hours_begin_with_the_first_time_and_end_before_the_second() {
        assert!(!outside("9-17", "09:00:00") && !outside("9-17", "16:59:59"));
        assert!(outside("9-17", "17:00:00") && outside("9-17", "08:59:59"));
    }

    #[test]
    fn hours_may_go_past_midnight() {
        assert!(!outside("20:00-06:30", "23:00:00") && !outside("20:00-06:30", "06:29:00"));
        assert!(outside("20:00-06:30", "06:30:00") && outside("20:00-06:30", "19:59:00"));
        let hours: Hours = "20:00-06:30".parse().unwrap();
        let reason = hours.unfit("12:00:00".parse().unwrap()).unwrap();
        assert_eq!(reason, "it works from 20:00 to 06:30 only, by its local time");
    }

    #[test]
    fn what_names_no_hours_is_refused() {
        for text in ["", "9", "9-", "9-9", "25-3", "9:60-10", "-1-5", "nine-ten", "9-17-20"] {
            assert_eq!(text.parse::<Hours>(), Err(NotHours), "{text}");
        }
    }

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
        assert_eq!(
            of(|t| t.cpu_pressure = Some(97.2)).unwrap(),
            "it is busy: tasks waited for a processor for 97% of ten seconds, and 90% is the limit \
             (--busy-limit)"
        );
    }
}
