//! INA3221: the power monitor on Jetson boards, one or two chips of three channels each. It reports power, which is
//! integrated here.
//!
//! Sources: the kernel's `hwmon/ina3221.rst` (mV, mA, `update_interval` in ms) for JetPack 5 and later; the
//! `ina3221x` driver of L4T 32 (`in_power` in mW) for JetPack 4; the Jetson Linux developer guide and
//! the module data sheets for the rails.

use super::account::Tick;
use super::updates::Updates;
use super::{Integral, Meter};
use crate::system::tree::Tree;

/// Rails that feed the whole module; all other rails are parts of them.
const TOTAL: [&str; 3] = ["VDD_IN", "POM_5V_IN", "5V_IN"];

/// The files of a rail, as paths below the root.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Files {
    /// Millivolts and milliamperes.
    VoltageAndCurrent(String, String),
    /// Milliwatts.
    Power(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rail {
    name: String,
    files: Files,
}

impl Rail {
    fn watts(&self, tree: &Tree) -> Option<f64> {
        // Currents near zero may be negative by a few mA: the chip's zero is not exact.
        let number = |path: &str| tree.line(path)?.parse::<f64>().ok();
        match &self.files {
            Files::VoltageAndCurrent(voltage, current) => {
                Some(number(voltage)? * 1e-3 * number(current)? * 1e-3)
            }
            Files::Power(power) => Some(number(power)? * 1e-3),
        }
    }
}

/// The integrated rails of a board.
#[derive(Debug)]
pub struct Ina3221 {
    tree: Tree,
    rails: Vec<Rail>,
    /// Seconds between two updates, if the driver reports them.
    interval: Option<f64>,
    /// Otherwise, the observed updates.
    updates: Updates,
    integral: Integral,
}

/// Opens the board's monitor; None if there is none, or none of its rails can be read.
pub fn open(tree: &Tree) -> Option<Ina3221> {
    let (mut rails, interval) = hwmon_rails(tree);
    if rails.is_empty() {
        rails = iio_rails(tree);
    }
    let rails: Vec<Rail> =
        chosen(rails).into_iter().filter(|rail| rail.watts(tree).is_some()).collect();
    if rails.is_empty() {
        return None;
    }
    Some(Ina3221 {
        tree: tree.clone(),
        rails,
        interval,
        updates: Updates::default(),
        integral: Integral::default(),
    })
}

/// The rails that add up to the board: the one that feeds all others, or else all of them.
fn chosen(rails: Vec<Rail>) -> Vec<Rail> {
    match rails.iter().find(|rail| TOTAL.contains(&rail.name.as_str())) {
        Some(total) => vec![total.clone()],
        None => rails,
    }
}

/// Whether something is connected to a channel.
fn is_rail(name: &str) -> bool {
    !name.is_empty() && name != "NC" && !name.starts_with("sum of")
}

/// The directories below the devices of a driver, such as `1-0040/hwmon/hwmon3`.
fn below(tree: &Tree, driver: &str, steps: &[&str]) -> Vec<String> {
    let chips = tree.entries(driver, |name| name.contains("-00"));
    steps.iter().fold(chips, |dirs, step| {
        dirs.iter().flat_map(|dir| tree.entries(dir, |name| name.starts_with(step))).collect()
    })
}

/// The rails of JetPack 5 and later, and the longest interval between updates.
fn hwmon_rails(tree: &Tree) -> (Vec<Rail>, Option<f64>) {
    let mut rails = vec![];
    let mut longest = None;
    for dir in below(tree, "sys/bus/i2c/drivers/ina3221", &["hwmon", "hwmon"]) {
        for channel in 1..=3 {
            let Some(name) = tree.line(&format!("{dir}/in{channel}_label")) else { continue };
            if is_rail(&name) {
                let files = Files::VoltageAndCurrent(
                    format!("{dir}/in{channel}_input"),
                    format!("{dir}/curr{channel}_input"),
                );
                rails.push(Rail { name, files });
            }
        }
        let millis = tree.number(&format!("{dir}/update_interval")).filter(|&millis| millis > 0);
        longest = longest.max(millis);
    }
    (rails, longest.map(|millis| millis as f64 * 1e-3))
}

/// The rails of JetPack 4.
fn iio_rails(tree: &Tree) -> Vec<Rail> {
    let mut rails = vec![];
    for dir in below(tree, "sys/bus/i2c/drivers/ina3221x", &["iio:device"]) {
        for channel in 0..3 {
            let Some(name) = tree.line(&format!("{dir}/rail_name_{channel}")) else { continue };
            if is_rail(&name) {
                rails.push(Rail {
                    name,
                    files: Files::Power(format!("{dir}/in_power{channel}_input")),
                });
            }
        }
    }
    rails
}

impl Meter for Ina3221 {
    fn source(&self) -> String {
        let names: Vec<&str> = self.rails.iter().map(|rail| rail.name.as_str()).collect();
        format!("ina3221 {}", names.join("+"))
    }

    fn tick(&self) -> Option<Tick> {
        let seconds = self.interval.or_else(|| self.updates.period())?;
        Some(Tick { seconds, joules: 0.0 })
    }

    fn joules(&mut self, now: f64) -> Option<f64> {
        let watts = self.rails.iter().map(|rail| rail.watts(&self.tree)).sum::<Option<f64>>()?;
        self.updates.see(now, watts);
        Some(self.integral.add(now, watts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::tests::{unpacked, write};

    #[test]
    fn the_rail_that_feeds_all_others_is_the_board() {
        let (dir, system) = unpacked("orin-nano-jetpack6");
        let mut meter = open(&system.tree).unwrap();
        assert_eq!(meter.source(), "ina3221 VDD_IN");
        assert_eq!(meter.tick(), Some(Tick { seconds: 0.035, joules: 0.0 }));
        assert_eq!(meter.joules(5.0), Some(0.0));
        // 5.048 V at 0.968 A for two seconds, then up to twice that over one.
        let joules = meter.joules(7.0).unwrap();
        assert!((joules - 2.0 * 5.048 * 0.968).abs() < 1e-9, "{joules}");
        let current = "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1/curr1_input";
        write(&dir.path().join(current), "1936\n");
        let joules = meter.joules(8.0).unwrap();
        assert!((joules - 3.5 * 5.048 * 0.968).abs() < 1e-9, "{joules}");
        std::fs::remove_file(dir.path().join(current)).unwrap();
        assert_eq!(meter.joules(9.0), None);
    }

    #[test]
    fn the_older_layout_tells_power_itself() {
        let (dir, system) = unpacked("nano-jetpack4");
        let mut meter = open(&system.tree).unwrap();
        assert_eq!((meter.source().as_str(), meter.tick()), ("ina3221 POM_5V_IN", None));
        meter.joules(0.0);
        assert_eq!(meter.joules(10.0), Some(25.48));
        // The driver does not report the update interval. The readings show it.
        let power =
            dir.path().join("sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/in_power0_input");
        for n in 0..40 {
            write(&power, &(2500 + n / 4).to_string());
            meter.joules(20.0 + 0.05 * f64::from(n));
        }
        let tick = meter.tick().unwrap();
        assert!((0.2..=0.25 + 1e-9).contains(&tick.seconds), "{tick:?}");
    }

    #[test]
    fn without_a_total_all_connected_rails_of_all_chips_count() {
        let (_dir, system) = unpacked("agx-xavier-jetpack4");
        let mut meter = open(&system.tree).unwrap();
        assert_eq!(meter.source(), "ina3221 GPU+CPU+SOC+CV+VDDRQ");
        meter.joules(0.0);
        assert_eq!(meter.joules(1.0), Some(4.0));
    }

    #[test]
    fn other_boards_have_none() {
        for name in ["desktop-i7", "cloud-vm", "t4-cloud"] {
            assert!(open(&unpacked(name).1.tree).is_none(), "{name}");
        }
    }
}
