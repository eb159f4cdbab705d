//! What this box is, and what state it is in: read from `/proc` and `/sys` below a root that tests
//! replace by a recorded tree.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use latlas_shared::{Device, Fingerprint, Telemetry};

/// Version of the libtorch that this program was built with.
pub const LIBTORCH_VERSION: &str = env!("LATLAS_LIBTORCH_VERSION");

/// The files that describe a box.
#[derive(Debug, Clone)]
pub struct System {
    root: PathBuf,
}

impl System {
    /// This box.
    pub fn here() -> System {
        System::at(Path::new("/"))
    }

    /// A box whose `/proc` and `/sys` lie below `root`.
    pub fn at(root: &Path) -> System {
        System { root: root.to_owned() }
    }

    /// The first line of a file, when there is one.
    fn line(&self, path: &str) -> Option<String> {
        let text = fs::read_to_string(self.root.join(path)).ok()?;
        let line = text.lines().next()?.trim_matches(['\0', ' ', '\t']).to_owned();
        (!line.is_empty()).then_some(line)
    }

    fn number(&self, path: &str) -> Option<u64> {
        self.line(path)?.parse().ok()
    }

    /// Everything about this box that changes latency.
    ///
    /// # Errors
    /// When the files that every Linux has are not there.
    pub fn fingerprint(&self, device: Device) -> Result<Fingerprint> {
        let cpuinfo = self.read("proc/cpuinfo")?;
        let meminfo = self.read("proc/meminfo")?;
        let memory_kib: u64 = field(&meminfo, "MemTotal")
            .and_then(|value| value.split_whitespace().next()?.parse().ok())
            .context("proc/meminfo has no MemTotal")?;
        let cpus = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
        Ok(Fingerprint {
            device,
            arch: std::env::consts::ARCH.to_owned(),
            cpu_model: self
                .line("proc/device-tree/model")
                .or_else(|| field(&cpuinfo, "model name").map(str::to_owned)),
            cpu_family: family(&cpuinfo),
            cpus: u32::try_from(cpus)?,
            memory_bytes: memory_kib * 1024,
            gpu: None,
            gpu_memory_bytes: None,
            driver: None,
            power_mode: self.line("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            max_khz: self.number("sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq"),
            kernel: self.line("proc/sys/kernel/osrelease"),
            libtorch: LIBTORCH_VERSION.to_owned(),
            facts: BTreeMap::new(),
        })
    }

    /// The state of the box now.
    pub fn telemetry(&self) -> Telemetry {
        let load1 = self
            .line("proc/loadavg")
            .and_then(|line| line.split_whitespace().next()?.parse().ok());
        Telemetry {
            load1,
            khz: self.number("sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq"),
            temperature_c: self.hottest(),
            ..Telemetry::default()
        }
    }

    fn hottest(&self) -> Option<f64> {
        let zones = fs::read_dir(self.root.join("sys/class/thermal")).ok()?;
        let millis = zones.flatten().filter_map(|zone| {
            let text = fs::read_to_string(zone.path().join("temp")).ok()?;
            text.trim().parse::<f64>().ok()
        });
        millis.max_by(f64::total_cmp).map(|millis| millis / 1000.0)
    }

    /// The name of this host, for people.
    pub fn host_name(&self) -> String {
        self.line("proc/sys/kernel/hostname").unwrap_or_else(|| "unnamed".to_owned())
    }

    fn read(&self, path: &str) -> Result<String> {
        let path = self.root.join(path);
        fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    }
}

/// The value of the first `name : value` line.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim()).filter(|value| !value.is_empty())
    })
}

fn family(cpuinfo: &str) -> Option<String> {
    if let (Some(family), Some(model)) = (field(cpuinfo, "cpu family"), field(cpuinfo, "model")) {
        return Some(format!("f{family}m{model}"));
    }
    let implementer = field(cpuinfo, "CPU implementer")?;
    Some(format!("i{implementer}p{}", field(cpuinfo, "CPU part")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A box made of a few files.
    fn recorded(files: &[(&str, &str)]) -> (tempfile::TempDir, System) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let system = System::at(dir.path());
        (dir, system)
    }

    const MEMINFO: &str = "MemTotal:       24611876 kB\nMemFree: 1 kB\n";

    #[test]
    fn a_cloud_box_hides_most_of_itself() {
        let cpuinfo = "processor\t: 0\ncpu family\t: 25\nmodel\t\t: 1\nmodel name\t: AMD EPYC\n\n\
                       processor\t: 1\ncpu family\t: 25\nmodel\t\t: 1\nmodel name\t: AMD EPYC\n";
        let (_dir, system) = recorded(&[("proc/cpuinfo", cpuinfo), ("proc/meminfo", MEMINFO)]);
        let fingerprint = system.fingerprint(Device::Cpu).unwrap();
        assert_eq!(fingerprint.cpus, 2);
        assert_eq!(fingerprint.power_mode, None);
        assert_eq!(fingerprint.hardware_id().as_str(), "amd-epyc-f25m1-2c-24gb.cpu");
        let telemetry = system.telemetry();
        assert_eq!((telemetry.khz, telemetry.temperature_c), (None, None));
    }

    #[test]
    fn a_jetson_is_named_by_its_device_tree() {
        let cpuinfo = "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd42\n";
        let (_dir, system) = recorded(&[
            ("proc/cpuinfo", cpuinfo),
            ("proc/meminfo", "MemTotal: 7800000 kB\n"),
            ("proc/device-tree/model", "NVIDIA Jetson Orin Nano Developer Kit\0"),
            ("proc/loadavg", "0.52 0.40 0.30 1/200 99\n"),
            ("sys/class/thermal/thermal_zone0/temp", "45500\n"),
            ("sys/class/thermal/thermal_zone1/temp", "51250\n"),
            ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "schedutil\n"),
            ("sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "1510400\n"),
        ]);
        let fingerprint = system.fingerprint(Device::Cpu).unwrap();
        assert_eq!(fingerprint.power_mode.as_deref(), Some("schedutil"));
        let id = fingerprint.hardware_id();
        assert!(id.as_str().starts_with("jetson-orin-nano-developer-kit-i0x41"), "{id}");
        assert!(id.as_str().ends_with("-1c-8gb.cpu"), "{id}");
        let telemetry = system.telemetry();
        assert_eq!(telemetry.load1, Some(0.52));
        assert_eq!(telemetry.khz, Some(1_510_400));
        assert_eq!(telemetry.temperature_c, Some(51.25));
    }

    #[test]
    fn a_box_without_proc_is_an_error_that_names_the_file() {
        let (_dir, system) = recorded(&[]);
        let error = system.fingerprint(Device::Cpu).unwrap_err().to_string();
        assert!(error.contains("proc/cpuinfo"), "{error}");
    }
}
