//! Facts about NVIDIA Jetson modules, from the device tree and the files of L4T.
//!
//! Sources: the Jetson Linux developer guide ("Platform power and performance"), the installed `nvpmodel.conf` and
//! `jetson_clocks` script, and NVIDIA's part numbers of modules.

use super::cpu;
use super::tree::Tree;

/// Part numbers of modules in the device tree's `compatible`, and their names. The text `model` names the kit or the
/// carrier board instead, and differs between releases.
const MODULES: [(&str, &str); 19] = [
    ("p3767-0000", "Jetson Orin NX"),
    ("p3767-0001", "Jetson Orin NX"),
    ("p3767-0003", "Jetson Orin Nano"),
    ("p3767-0004", "Jetson Orin Nano"),
    ("p3767-0005", "Jetson Orin Nano"),
    ("p3701-0000", "Jetson AGX Orin"),
    ("p3701-0004", "Jetson AGX Orin"),
    ("p3701-0005", "Jetson AGX Orin"),
    ("p3701-0008", "Jetson AGX Orin Industrial"),
    ("p3668", "Jetson Xavier NX"),
    ("p2888", "Jetson AGX Xavier"),
    ("p2972", "Jetson AGX Xavier"),
    ("p3636", "Jetson TX2 NX"),
    ("p3489-0000", "Jetson TX2i"),
    ("p3489", "Jetson TX2"),
    ("p3310", "Jetson TX2"),
    ("p3448", "Jetson Nano"),
    ("p3450", "Jetson Nano"),
    ("p2180", "Jetson TX1"),
];

/// Names of the GPUs of all Tegras among the devices that scale their frequency.
const GPU_NAMES: [&str; 6] = ["gpu", "ga10b", "gv11b", "gp10b", "gm20b", "gb10b"];

/// A Jetson.
pub struct Jetson<'a> {
    tree: &'a Tree,
    compatible: Vec<String>,
}

impl Jetson<'_> {
    /// The Jetson that this box is, if it is one.
    pub fn detect(tree: &Tree) -> Option<Jetson<'_>> {
        let compatible: Vec<String> = tree
            .text("proc/device-tree/compatible")?
            .split('\0')
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect();
        let is_tegra = compatible.iter().any(|name| name.starts_with("nvidia,tegra"));
        is_tegra.then_some(Jetson { tree, compatible })
    }

    /// The module's name, such as `Jetson Orin Nano`; the device tree's own text if the part number is unknown.
    pub fn name(&self) -> Option<String> {
        let part = |(part, name): &(&str, &str)| {
            let fits = |compatible: &String| compatible.contains(part);
            self.compatible.iter().any(fits).then(|| (*name).to_owned())
        };
        MODULES.iter().find_map(part).or_else(|| self.tree.line("proc/device-tree/model"))
    }

    /// The L4T release, such as `L4T R36.4.3`.
    pub fn release(&self) -> Option<String> {
        release(&self.tree.line("etc/nv_tegra_release")?)
    }

    /// The name of the `nvpmodel` mode, such as `15W`; its number if the list of modes has no name for it. Unknown
    /// without a status: the mode that `nvpmodel` would choose at boot would be a guess.
    pub fn power_mode(&self) -> Option<String> {
        let status = self.tree.text("var/lib/nvpmodel/status")?;
        let id: u32 = status
            .split(|c: char| c.is_whitespace() || c == ',')
            .find_map(|word| word.strip_prefix("pmode:"))?
            .parse()
            .ok()?;
        let modes = self.tree.text("etc/nvpmodel.conf").unwrap_or_default();
        Some(mode_name(&modes, id).unwrap_or_else(|| format!("mode{id}")))
    }

    /// The other facts that change latency.
    pub fn facts(&self) -> Vec<(&'static str, Option<String>)> {
        let chip = self.compatible.iter().rev().find(|name| name.starts_with("nvidia,tegra"));
        let mhz = |hz: Option<u64>| hz.map(|hz| (hz / 1_000_000).to_string());
        vec![
            ("soc", chip.and_then(|name| Some(name.split_once(',')?.1.to_owned()))),
            ("model", self.tree.line("proc/device-tree/model")),
            ("jetson_clocks", self.jetson_clocks()),
            ("gpu_max_mhz", mhz(self.gpu_hz("max_freq"))),
            ("gpu_min_mhz", mhz(self.gpu_hz("min_freq"))),
            ("emc_max_mhz", mhz(self.emc_limit_hz())),
            ("unified_memory", Some("yes".to_owned())),
        ]
    }

    /// Current clock of the GPU, in MHz.
    pub fn gpu_mhz(&self) -> Option<u32> {
        u32::try_from(self.gpu_hz("cur_freq")? / 1_000_000).ok()
    }

    /// Current clock of the external memory controller, in MHz. The kernel shows it to root alone.
    pub fn emc_mhz(&self) -> Option<u32> {
        let clocks =
            ["sys/kernel/debug/bpmp/debug/clk/emc/rate", "sys/kernel/debug/clk/emc/clk_rate"];
        let hz = clocks.into_iter().find_map(|path| self.tree.number(path))?;
        u32::try_from(hz / 1_000_000).ok()
    }

    /// `on` if processors and GPU have fixed clocks, which is the effect of `jetson_clocks`; `off` if neither has,
    /// `partly` if one has; unknown if either cannot be read.
    fn jetson_clocks(&self) -> Option<String> {
        let gpu = self.gpu_hz("min_freq")? == self.gpu_hz("max_freq")?;
        Some(
            match (cpu::clocks_are_fixed(self.tree)?, gpu) {
                (true, true) => "on",
                (false, false) => "off",
                _ => "partly",
            }
            .to_owned(),
        )
    }

    fn gpu_hz(&self, file: &str) -> Option<u64> {
        let gpus = self.tree.entries("sys/class/devfreq", is_gpu);
        self.tree.number(&format!("{}/{file}", gpus.first()?))
    }

    /// The limit of the memory clock in Hz: the value that `nvpmodel` has set, else the highest rate.
    fn emc_limit_hz(&self) -> Option<u64> {
        let limits = [
            "sys/kernel/nvpmodel_clk_cap/emc",
            "sys/kernel/nvpmodel_emc_cap/emc_iso_cap",
            "sys/kernel/debug/bpmp/debug/clk/emc/max_rate",
        ];
        // A cap of zero means no cap.
        limits.into_iter().find_map(|path| self.tree.number(path).filter(|&hz| hz > 0))
    }

    /// The kernel's active throttles: cooling devices of the module's thermal zones and of its current limiter. None if
    /// there is no such device.
    pub fn throttles(&self) -> Option<Vec<String>> {
        let devices =
            self.tree.entries("sys/class/thermal", |name| name.starts_with("cooling_device"));
        let mut known = false;
        let mut acting = vec![];
        for device in &devices {
            let Some(kind) = self.tree.line(&format!("{device}/type")) else { continue };
            let lower = kind.to_lowercase();
            let holds_clocks = ["throttle", "cpufreq", "devfreq", "balanced"]
                .iter()
                .any(|word| lower.contains(word));
            let Some(state) = self.tree.number(&format!("{device}/cur_state")) else { continue };
            if !holds_clocks {
                continue;
            }
            known = true;
            if state > 0 {
                acting.push(format!("{kind}={state}"));
            }
        }
        known.then_some(acting)
    }
}

/// Whether a device that scales its frequency is a Tegra's GPU, by its name.
fn is_gpu(name: &str) -> bool {
    name.rsplit('.').next().is_some_and(|last| GPU_NAMES.contains(&last))
}

/// `# R36 (release), REVISION: 4.3, GCID: ...` as `L4T R36.4.3`.
fn release(line: &str) -> Option<String> {
    let major = line.trim_start_matches(['#', ' ']).split_whitespace().next()?;
    let minor = line.split_once("REVISION:")?.1.split(',').next()?.trim();
    major.starts_with('R').then(|| format!("L4T {major}.{minor}"))
}

/// The name of a mode in `nvpmodel.conf`: `< POWER_MODEL ID=0 NAME=15W >`.
fn mode_name(modes: &str, id: u32) -> Option<String> {
    modes.lines().find_map(|line| {
        let line = line.trim().strip_prefix('<')?.trim_end_matches('>');
        let mut words = line.split_whitespace();
        if words.next() != Some("POWER_MODEL") {
            return None;
        }
        let mut its_id = None;
        let mut name = None;
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            match key {
                "ID" => its_id = value.parse::<u32>().ok(),
                "NAME" => name = Some(value.to_owned()),
                _ => {}
            }
        }
        (its_id == Some(id)).then_some(name).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read_from_either_generation() {
        let five = "# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref, EABI: aarch64";
        let four = "# R32 (release), REVISION: 7.1, GCID: 29818004, BOARD: t210ref, EABI: aarch64";
        assert_eq!(release(five).as_deref(), Some("L4T R35.4.1"));
        assert_eq!(release(four).as_deref(), Some("L4T R32.7.1"));
        assert_eq!(release("something else"), None);
    }

    #[test]
    fn a_mode_has_the_name_that_its_list_gives_it() {
        let modes = "< PARAM TYPE=FILE NAME=CPU_ONLINE >\n< POWER_MODEL ID=0 NAME=15W >\nCPU 0\n\
                     < POWER_MODEL ID=1 NAME=7W >\n< PM_CONFIG DEFAULT=0 >\n";
        assert_eq!(mode_name(modes, 1).as_deref(), Some("7W"));
        assert_eq!(mode_name(modes, 2), None);
    }

    #[test]
    fn the_gpu_is_told_from_other_devices() {
        assert!(is_gpu("17000000.gpu"));
        assert!(is_gpu("57000000.gpu"));
        assert!(is_gpu("17000000.ga10b"));
        assert!(!is_gpu("15340000.vic"));
    }
}
