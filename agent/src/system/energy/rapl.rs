//! RAPL: the processor's own energy counters, through the kernel's power capping interface.
//!
//! Source: the kernel's `power/powercap/powercap.rst`; the Intel manual, volume 3, 15.10.1, for the
//! millisecond between updates and for the unit of 2^-14 J, and AMD's counters for 2^-16 J.

use std::fs;
use std::io::ErrorKind;

use super::account::Tick;
use super::{Meter, NoMeter};
use crate::system::tree::{Tree, is_number};

/// Counters are updated about every millisecond. The kernel adds the time of a read.
const TICK: Tick = Tick { seconds: 2e-3, joules: 1.0 / 16384.0 };

/// One package's counter.
#[derive(Debug)]
struct Domain {
    name: String,
    /// Path below the root.
    dir: String,
    /// The value at which the counter wraps to zero, in microjoules.
    range: u64,
    last: u64,
}

/// The sum of all packages.
#[derive(Debug)]
pub struct Rapl {
    tree: Tree,
    domains: Vec<Domain>,
    microjoules: u64,
}

/// Opens the counters of all packages. Domains inside a package are parts of it and are left out, as is `psys`, which
/// covers more than the processor.
///
/// # Errors
/// When the counters are absent or cannot be read.
pub fn open(tree: &Tree) -> Result<Rapl, NoMeter> {
    let base = "sys/class/powercap";
    let dirs = tree.entries(base, |name| name.strip_prefix("intel-rapl:").is_some_and(is_number));
    let mut domains = vec![];
    for dir in dirs {
        let Some(name) = tree.line(&format!("{dir}/name")) else { continue };
        if !name.starts_with("package") {
            continue;
        }
        let counter = format!("{dir}/energy_uj");
        // Since 2020 the kernel shows it to root alone, because it leaks information about other programs.
        if let Err(source) = fs::read_to_string(tree.path(&counter)) {
            let path = counter;
            return Err(match source.kind() {
                ErrorKind::PermissionDenied => NoMeter::NeedsRoot { path, source },
                _ => NoMeter::Unreadable { path, source },
            });
        }
        let range = tree.number(&format!("{dir}/max_energy_range_uj")).filter(|&range| range > 0);
        let (Some(range), Some(last)) = (range, tree.number(&counter)) else {
            return Err(NoMeter::NoNumbers { dir });
        };
        domains.push(Domain { name, dir, range, last });
    }
    if domains.is_empty() {
        return Err(NoMeter::NoRapl);
    }
    Ok(Rapl { tree: tree.clone(), domains, microjoules: 0 })
}

/// The difference of two readings, between which the counter may have wrapped once.
fn difference(before: u64, now: u64, range: u64) -> u64 {
    if now >= before { now - before } else { now + range.saturating_sub(before) }
}

impl Meter for Rapl {
    fn source(&self) -> String {
        let names: Vec<&str> = self.domains.iter().map(|domain| domain.name.as_str()).collect();
        format!("rapl {}", names.join("+"))
    }

    fn tick(&self) -> Option<Tick> {
        Some(Tick { joules: TICK.joules * self.domains.len() as f64, ..TICK })
    }

    fn joules(&mut self, _now: f64) -> Option<f64> {
        // All or nothing: a package that is missed once would be counted in the next reading.
        let now = self
            .domains
            .iter()
            .map(|domain| self.tree.number(&format!("{}/energy_uj", domain.dir)))
            .collect::<Option<Vec<u64>>>()?;
        for (domain, now) in self.domains.iter_mut().zip(now) {
            self.microjoules += difference(domain.last, now, domain.range);
            domain.last = now;
        }
        Some(self.microjoules as f64 * 1e-6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::tests::{unpacked, write};
    use proptest::prelude::*;

    const COUNTER: &str = "sys/class/powercap/intel-rapl:0/energy_uj";

    #[test]
    fn the_counter_wraps_and_goes_on() {
        let (dir, system) = unpacked("desktop-i7");
        let mut meter = open(&system.tree).unwrap();
        assert_eq!(meter.source(), "rapl package-0");
        assert_eq!(meter.joules(0.0), Some(0.0));
        write(&dir.path().join(COUNTER), "262143300000\n");
        assert_eq!(meter.joules(1.0), Some(0.3));
        write(&dir.path().join(COUNTER), "171150\n");
        let after = meter.joules(2.0).unwrap();
        assert!((after - 0.5).abs() < 1e-9, "{after}");
    }

    #[test]
    fn two_packages_are_added() {
        let (dir, system) = unpacked("desktop-i7");
        let second = "sys/class/powercap/intel-rapl:2";
        for (file, text) in
            [("name", "package-1"), ("energy_uj", "5"), ("max_energy_range_uj", "9999999")]
        {
            write(&dir.path().join(format!("{second}/{file}")), text);
        }
        let mut meter = open(&system.tree).unwrap();
        assert_eq!(meter.source(), "rapl package-0+package-1");
        write(&dir.path().join(format!("{second}/energy_uj")), "1000005");
        assert_eq!(meter.joules(0.0), Some(1.0));
        write(&dir.path().join(format!("{second}/energy_uj")), "not now");
        assert_eq!(meter.joules(0.0), None);
    }

    #[test]
    fn a_box_without_it_says_why() {
        let (_dir, system) = unpacked("cloud-vm");
        assert!(open(&system.tree).unwrap_err().to_string().contains("virtual machines"));
        let (dir, system) = unpacked("desktop-i7");
        std::fs::remove_file(dir.path().join(COUNTER)).unwrap();
        let reason = open(&system.tree).unwrap_err().to_string();
        assert!(reason.contains("intel-rapl:0/energy_uj"), "{reason}");
    }

    proptest! {
        #[test]
        fn steps_add_up_over_any_number_of_wraps(
            steps in prop::collection::vec(0u64..1000, 1..100),
            start in 0u64..1000,
        ) {
            let range = 1000;
            let mut counter = start;
            let mut seen = 0;
            for &step in &steps {
                let next = (counter + step) % range;
                seen += difference(counter, next, range);
                counter = next;
            }
            prop_assert_eq!(seen, steps.iter().sum::<u64>());
        }
    }
}
