//! Which hardware a number belongs to, and how the op was run.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A class of identical devices, e.g. `amd-epyc-f25m1-2c-24gb.cpu`. Not the identity of one box.
///
/// At most 50 characters of `a-z`, `0-9`, `-` and `.`, since it is a column of the seed's table and a
/// part of URLs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HardwareId(String);

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
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
        if (1..=50).contains(&text.len()) && text.bytes().all(plain) && !text.starts_with('.') {
            return Ok(HardwareId(text.to_owned()));
        }
        Err(format!(
            "`{}` is not a hardware id: 1 to 50 of a-z, 0-9, `-` and `.`, such as `tesla-t4-16gb.cuda`",
            text.chars().take(60).collect::<String>()
        ))
    }
}

impl TryFrom<String> for HardwareId {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
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

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "cpu" => Ok(Device::Cpu),
            "cuda" => Ok(Device::Cuda(0)),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|index| index.parse().ok())
                .map(Device::Cuda)
                .ok_or_else(|| format!("`{text}` is not a device: write `cpu` or `cuda:N`")),
        }
    }
}

impl TryFrom<String> for Device {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Device> for String {
    fn from(device: Device) -> String {
        device.to_string()
    }
}

/// What one box says of itself: everything that changes latency. A field that could not be read is
/// null, never a guess.
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
    /// Version of libtorch.
    pub libtorch: String,
    /// Other facts that change latency, each under the name of its file or query: huge pages, memory
    /// clocks, versions of kernels.
    #[serde(default)]
    pub facts: BTreeMap<String, String>,
}

impl Fingerprint {
    /// The class of devices that this box belongs to.
    pub fn hardware_id(&self) -> HardwareId {
        let memory = |bytes: u64| format!("{}gb", bytes.div_ceil(1 << 30));
        let text = match self.device {
            Device::Cpu => {
                let mut name = slug(self.cpu_model.as_deref().unwrap_or("unknown-cpu"));
                // `AMD EPYC` alone covers processors that are years apart.
                if !name.contains(|c: char| c.is_ascii_digit())
                    && let Some(family) = &self.cpu_family
                {
                    name = format!("{name}-{}", slug(family));
                }
                let tail = format!("-{}c-{}.cpu", self.cpus, memory(self.memory_bytes));
                shorten(&name, 50 - tail.len()) + &tail
            }
            Device::Cuda(_) => {
                let name = slug(self.gpu.as_deref().unwrap_or("unknown-gpu"));
                let mode = self.power_mode.as_deref().map(|m| format!(".{}", slug(m)));
                let tail = format!(
                    "-{}.cuda{}",
                    memory(self.gpu_memory_bytes.unwrap_or(self.memory_bytes)),
                    mode.unwrap_or_default()
                );
                let tail = shorten(&tail, 30);
                shorten(&name, 50 - tail.len()) + &tail
            }
        };
        text.parse().expect("slugs are made of the allowed characters and were shortened to fit")
    }

    /// A hash of all of it: two measurements with one digest were made under one set of conditions.
    pub fn digest(&self) -> String {
        let text = serde_json::to_string(self).expect("plain data serializes to JSON");
        hex(&Sha256::digest(text)[..16])
    }
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn shorten(text: &str, most: usize) -> String {
    text.chars().take(most).collect::<String>().trim_end_matches('-').to_owned()
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

/// Element type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dtype {
    /// 32-bit floating point.
    F32,
    /// 16-bit floating point, 5 bits of exponent.
    F16,
    /// 16-bit floating point, 8 bits of exponent.
    Bf16,
}

impl Dtype {
    /// Bytes of one element.
    pub fn bytes(self) -> u64 {
        match self {
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::Bf16 => 2,
        }
    }
}

/// Order of a map's elements in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemoryFormat {
    /// Channel by channel (NCHW).
    Contiguous,
    /// Position by position (NHWC). Sequences of tokens are that already.
    ChannelsLast,
}

/// What happens to freed memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Allocator {
    /// It stays with the process, as in a service that was configured for inference: no page faults
    /// in the steady state.
    Retain,
    /// The system's defaults.
    System,
}

/// One table of names per enum, for run config ids and command lines alike.
macro_rules! named {
    ($type:ty, $what:literal, $($variant:path => $name:literal),+) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $($variant => $name),+ })
            }
        }

        impl FromStr for $type {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($name => Ok($variant),)+
                    _ => Err(format!(
                        "`{text}` is not {}: write one of {}",
                        $what,
                        [$($name),+].join(", ")
                    )),
                }
            }
        }
    };
}

named!(Dtype, "an element type", Dtype::F32 => "f32", Dtype::F16 => "f16", Dtype::Bf16 => "bf16");
named!(
    MemoryFormat,
    "a memory format",
    MemoryFormat::Contiguous => "contiguous",
    MemoryFormat::ChannelsLast => "channels_last"
);
named!(
    Allocator,
    "an allocator policy",
    Allocator::Retain => "retain",
    Allocator::System => "system"
);

/// The reuse distance that `latency_micros` is read at unless a run config says otherwise: 8 MiB.
pub const CONFIG_DEFAULT_REUSE_DISTANCE: u64 = 8 << 20;

/// How an op is executed. A table belongs to one (hardware id, run config).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// Element type.
    pub dtype: Dtype,
    /// Order in memory.
    pub memory_format: MemoryFormat,
    /// Intra-op threads.
    pub threads: u32,
    /// Allocator policy.
    pub allocator: Allocator,
    /// The reuse distance, in bytes, that `latency_micros` is read at.
    pub reuse_distance_bytes: u64,
    /// Version of libtorch.
    pub libtorch: String,
}

impl RunConfig {
    /// The config's name in URLs and listings: every field, in a fixed order, so equal configs and only they
    /// have equal ids.
    pub fn id(&self) -> String {
        let distance = match self.reuse_distance_bytes {
            bytes if bytes % (1 << 20) == 0 => format!("{}m", bytes >> 20),
            bytes => format!("{bytes}b"),
        };
        format!(
            "{}-{}-t{}-{}-r{distance}-torch{}",
            self.dtype, self.memory_format, self.threads, self.allocator, self.libtorch
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu(model: Option<&str>, family: Option<&str>) -> Fingerprint {
        Fingerprint {
            device: Device::Cpu,
            arch: "x86_64".into(),
            cpu_model: model.map(Into::into),
            cpu_family: family.map(Into::into),
            cpus: 2,
            memory_bytes: 25_000_000_000,
            gpu: None,
            gpu_memory_bytes: None,
            driver: None,
            power_mode: None,
            max_khz: None,
            kernel: None,
            libtorch: "2.13.0".into(),
            facts: BTreeMap::new(),
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
    }

    #[test]
    fn a_gpu_s_power_mode_is_part_of_its_class() {
        let mut jetson = cpu(None, None);
        jetson.device = Device::Cuda(0);
        jetson.gpu = Some("Jetson Orin Nano".into());
        jetson.memory_bytes = 8 << 30;
        jetson.power_mode = Some("15W".into());
        assert_eq!(jetson.hardware_id().as_str(), "jetson-orin-nano-8gb.cuda.15w");
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
