//! Which hardware a number belongs to.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use ops_catalog::digest;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A class of identical devices, e.g. `amd-epyc-f25m1-2c-24gb.cpu`. Not the identity of one box.
///
/// At most 50 characters of `a-z`, `0-9`, `-` and `.`, since it is a column of the seed's table and a
/// part of URLs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HardwareId(String);

/// A text that is not a hardware id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a hardware id: 1 to 50 of a-z, 0-9, `-` and `.`, such as `tesla-t4-16gb.cuda`"
)]
pub struct NotAHardwareId {
    /// At most 60 characters of the text.
    pub text: String,
}

impl HardwareId {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HardwareId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for HardwareId {
    type Err = NotAHardwareId;

    fn from_str(text: &str) -> Result<Self, NotAHardwareId> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
        if (1..=50).contains(&text.len()) && text.bytes().all(plain) && !text.starts_with('.') {
            return Ok(HardwareId(text.to_owned()));
        }
        Err(NotAHardwareId { text: text.chars().take(60).collect() })
    }
}

impl TryFrom<String> for HardwareId {
    type Error = NotAHardwareId;
    fn try_from(text: String) -> Result<Self, NotAHardwareId> {
        text.parse()
    }
}

impl From<HardwareId> for String {
    fn from(id: HardwareId) -> String {
        id.0
    }
}

/// Where an op runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Device {
    /// The processor.
    Cpu,
    /// A CUDA device, by index.
    Cuda(u32),
}

/// A text that is not a device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a device: write `cpu` or `cuda:N`")]
pub struct NotADevice {
    /// The text.
    pub text: String,
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

impl FromStr for Device {
    type Err = NotADevice;

    fn from_str(text: &str) -> Result<Self, NotADevice> {
        match text {
            "cpu" => Ok(Device::Cpu),
            "cuda" => Ok(Device::Cuda(0)),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|index| index.parse().ok())
                .map(Device::Cuda)
                .ok_or_else(|| NotADevice { text: text.to_owned() }),
        }
    }
}

impl TryFrom<String> for Device {
    type Error = NotADevice;
    fn try_from(text: String) -> Result<Self, NotADevice> {
        text.parse()
    }
}

#[cfg(feature = "openapi")]
ops_catalog::openapi::text_schema!(Device, "Where ops run: `cpu`, or `cuda:N`.");
#[cfg(feature = "openapi")]
ops_catalog::openapi::text_schema!(HardwareId, "A class of devices, as `tesla-t4-16gb.cuda`.");

impl From<Device> for String {
    fn from(device: Device) -> String {
        device.to_string()
    }
}

/// All facts about one box that can change its latencies. A field that could not be read is null, never a guess.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fingerprint {
    /// Where ops run.
    pub device: Device,
    /// Processor architecture, e.g. `x86_64`.
    pub arch: String,
    /// The processor's own name.
    pub cpu_model: Option<String>,
    /// Family and model numbers on x86, implementer and part on Arm: some virtual machines hide the
    /// rest of the name.
    pub cpu_family: Option<String>,
    /// Processors that this machine may use.
    pub cpus: u32,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Name of the GPU, when the device is one.
    pub gpu: Option<String>,
    /// Memory of the GPU in bytes.
    pub gpu_memory_bytes: Option<u64>,
    /// Version of the GPU's driver, or L4T release.
    pub driver: Option<String>,
    /// Frequency governor, or `nvpmodel` power mode.
    pub power_mode: Option<String>,
    /// Highest processor frequency allowed, in kHz.
    pub max_khz: Option<u64>,
    /// Operating system's kernel release.
    pub kernel: Option<String>,
    /// Version of libtorch, or `none` where another runtime runs ops: the run config has that one's version.
    pub libtorch: String,
    /// Other facts that change latency, each under the name of its file or query: huge pages, memory
    /// clocks, versions of kernels.
    #[serde(default)]
    pub facts: BTreeMap<String, String>,
}

impl Fingerprint {
    /// The class of devices that this box belongs to: `<name>-<size>.<device>`, then reversible settings, each after a
    /// dot: the power mode, `locked` clocks, `noboost`, and the quota of processor time.
    ///
    /// The id leaves out the driver, kernel, microcode and huge pages; the [digest](Self::digest) has them.
    pub fn hardware_id(&self) -> HardwareId {
        let (name, mut tail) = match self.device {
            Device::Cpu => {
                let size = format!("-{}c-{}.cpu", self.cpus, gib(self.memory_bytes));
                (self.cpu_name(), size)
            }
            Device::Cuda(_) => self.gpu_name(),
        };
        let fact = |name: &str| self.facts.get(name).map(String::as_str);
        if let Some(mode) = &self.power_mode {
            tail += &format!(".{}", slug(mode));
        }
        if fact("jetson_clocks") == Some("on") {
            tail += ".locked";
        }
        if fact("boost") == Some("off") {
            tail += ".noboost";
        }
        if let Some(cpus) = fact("cgroup_cpus") {
            tail += &format!(".q{}", slug(cpus));
        }
        let tail = shorten(&tail, 38);
        let text = shorten(&name, 50 - tail.len()) + &tail;
        text.parse().expect("slugs are made of the allowed characters and were shortened to fit")
    }

    fn cpu_name(&self) -> String {
        let name = slug(self.cpu_model.as_deref().unwrap_or("unknown-cpu"));
        // `AMD EPYC` alone covers several generations of processors; the name of a Jetson identifies it.
        let says_which = name.contains(|c: char| c.is_ascii_digit()) || name.starts_with("jetson");
        match &self.cpu_family {
            Some(family) if !says_which => format!("{name}-{}", slug(family)),
            _ => name,
        }
    }

    /// The GPU's name, and its memory and device as the beginning of the tail. A GPU without memory of its
    /// own shares the processor's.
    fn gpu_name(&self) -> (String, String) {
        let Some(gpu) = &self.gpu else { return ("unknown-gpu".to_owned(), ".cuda".to_owned()) };
        let memory = match self.gpu_memory_bytes {
            Some(bytes) => product_size(bytes),
            None => gib(self.memory_bytes),
        };
        let name = slug(gpu);
        // Some products contain their memory size in their name.
        let name = name.strip_suffix(&format!("-{memory}")).map(str::to_owned).unwrap_or(name);
        (name, format!("-{memory}.cuda"))
    }

    /// A hash of all of it: two measurements with one digest were made under one set of conditions.
    pub fn digest(&self) -> String {
        let text = serde_json::to_string(self).expect("plain data serializes to JSON");
        digest::write("fp1-", &Sha256::digest(text))
    }
}

fn gib(bytes: u64) -> String {
    format!("{}gb", bytes.div_ceil(1 << 30))
}

/// The memory that a GPU is sold with. Error correction and the firmware keep up to a tenth of it, more or
/// less of it with each driver: a T4 of 16 GB reports 14.75 or 15 GiB.
fn product_size(bytes: u64) -> String {
    const SOLD: [u64; 8] = [8, 16, 24, 32, 40, 48, 64, 80];
    let fits = |&&size: &&u64| bytes <= size << 30 && bytes as f64 >= 0.9 * (size << 30) as f64;
    SOLD.iter().find(fits).map_or_else(|| gib(bytes), |size| format!("{size}gb"))
}

/// Shortens a text to `most` characters. A part of its hash replaces the end, so that names with one beginning stay
/// distinct.
fn shorten(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let hash = hex::encode(&Sha256::digest(text)[..2]);
    let kept: String = text.chars().take(most - hash.len() - 1).collect();
    format!("{}-{hash}", kept.trim_end_matches(['-', '.']))
}

/// A product name as part of an id: `Intel(R) Xeon(R) CPU @ 2.20GHz` becomes `intel-xeon-2.20ghz`.
fn slug(name: &str) -> String {
    let lower = name.to_lowercase().replace("(r)", " ").replace("(tm)", " ");
    let words = lower
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '.'))
        .map(|word| word.trim_matches('.'))
        .filter(|word| {
            !word.is_empty() && !matches!(*word, "cpu" | "processor" | "core" | "nvidia")
        });
    let text: Vec<&str> = words.collect();
    if text.is_empty() { "unknown".to_owned() } else { text.join("-") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn cpu(model: Option<&str>, family: Option<&str>) -> Fingerprint {
        Fingerprint {
            cpu_model: model.map(Into::into),
            cpu_family: family.map(Into::into),
            memory_bytes: 25_000_000_000,
            ..testing::fingerprint(8)
        }
    }

    #[test]
    fn hardware_ids_name_the_class() {
        for (model, family, id) in [
            (Some("AMD EPYC"), Some("f25m1"), "amd-epyc-f25m1-2c-24gb.cpu"),
            (
                Some("Intel(R) Xeon(R) CPU @ 2.20GHz"),
                Some("f6m79"),
                "intel-xeon-2.20ghz-2c-24gb.cpu",
            ),
            (Some("AMD EPYC 7B13 64-Core Processor"), None, "amd-epyc-7b13-64-2c-24gb.cpu"),
            (None, None, "unknown-2c-24gb.cpu"),
        ] {
            assert_eq!(cpu(model, family).hardware_id().as_str(), id);
        }
        let long = "x".repeat(300);
        assert_eq!(cpu(Some(&long), None).hardware_id().as_str().len(), 50);
        let other = long.clone() + "y";
        assert_ne!(cpu(Some(&long), None).hardware_id(), cpu(Some(&other), None).hardware_id());
    }

    fn gpu(name: &str, bytes: Option<u64>) -> Fingerprint {
        Fingerprint {
            device: Device::Cuda(0),
            gpu: Some(name.into()),
            gpu_memory_bytes: bytes,
            ..cpu(Some("AMD EPYC"), Some("f25m1"))
        }
    }

    #[test]
    fn a_gpu_has_the_memory_that_it_is_sold_with() {
        for (name, mib, id) in [
            ("Tesla T4", 15360, "tesla-t4-16gb.cuda"),
            ("Tesla T4", 15109, "tesla-t4-16gb.cuda"),
            ("NVIDIA L4", 23034, "l4-24gb.cuda"),
            ("NVIDIA A100-SXM4-40GB", 40536, "a100-sxm4-40gb.cuda"),
            ("NVIDIA A100 80GB PCIe", 81920, "a100-80gb-pcie-80gb.cuda"),
            ("NVIDIA H200", 143_771, "h200-141gb.cuda"),
            ("NVIDIA GeForce RTX 2080 Ti", 11264, "geforce-rtx-2080-ti-11gb.cuda"),
        ] {
            assert_eq!(gpu(name, Some(mib << 20)).hardware_id().as_str(), id);
        }
    }

    #[test]
    fn a_gpu_that_nobody_could_name_is_unknown() {
        let nameless = Fingerprint { gpu: None, ..gpu("", None) };
        assert_eq!(nameless.hardware_id().as_str(), "unknown-gpu.cuda");
    }

    #[test]
    fn a_power_mode_is_part_of_the_class() {
        let mut jetson = gpu("Jetson Orin Nano", None);
        jetson.memory_bytes = 8 << 30;
        jetson.power_mode = Some("15W".into());
        assert_eq!(jetson.hardware_id().as_str(), "jetson-orin-nano-8gb.cuda.15w");
        jetson.facts.insert("jetson_clocks".into(), "off".into());
        assert_eq!(jetson.hardware_id().as_str(), "jetson-orin-nano-8gb.cuda.15w");
        jetson.facts.insert("jetson_clocks".into(), "on".into());
        assert_eq!(jetson.hardware_id().as_str(), "jetson-orin-nano-8gb.cuda.15w.locked");
        jetson.device = Device::Cpu;
        jetson.cpu_model = Some("Jetson Orin Nano".into());
        assert_eq!(jetson.hardware_id().as_str(), "jetson-orin-nano-2c-8gb.cpu.15w.locked");
    }

    #[test]
    fn what_holds_a_processor_down_is_part_of_its_class() {
        let mut one = cpu(Some("Intel(R) Core(TM) i7-8700 CPU @ 3.20GHz"), Some("f6m158"));
        one.power_mode = Some("powersave".into());
        assert_eq!(one.hardware_id().as_str(), "intel-i7-8700-3.20ghz-2c-24gb.cpu.powersave");
        one.facts.insert("boost".into(), "off".into());
        one.facts.insert("cgroup_cpus".into(), "1.5".into());
        let id = one.hardware_id();
        assert!(id.as_str().ends_with("-2c-24gb.cpu.powersave.noboost.q1.5"), "{id}");
        assert_eq!(id.as_str().len(), 50);
    }

    #[test]
    fn any_fact_changes_the_digest() {
        let one = cpu(Some("A"), None);
        let mut other = one.clone();
        other.kernel = Some("6.1".into());
        assert_ne!(one.digest(), other.digest());
        assert_eq!(one.digest(), one.clone().digest());
    }
}
