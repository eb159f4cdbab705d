//! How an op is executed.

use serde::{Deserialize, Serialize};

use crate::UnknownName;

/// Element type.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumString,
    strum::VariantNames,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case", parse_err_ty = UnknownName, parse_err_fn = UnknownName::of::<Dtype>)]
pub enum Dtype {
    /// 32-bit floating point.
    F32,
    /// 16-bit floating point, 5 bits of exponent.
    F16,
    /// 16-bit floating point, 8 bits of exponent.
    Bf16,
    /// 8-bit integers: a runtime quantizes weights and activations.
    Int8,
}

impl Dtype {
    /// Bytes of one element.
    pub fn bytes(self) -> u64 {
        match self {
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::Bf16 => 2,
            Dtype::Int8 => 1,
        }
    }
}

/// Order of a map's elements in memory.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumString,
    strum::VariantNames,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case", parse_err_ty = UnknownName, parse_err_fn = UnknownName::of::<MemoryFormat>)]
pub enum MemoryFormat {
    /// Channel by channel (NCHW).
    Contiguous,
    /// Position by position (NHWC). Sequences of tokens are that already.
    ChannelsLast,
}

/// What happens to freed memory.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumString,
    strum::VariantNames,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case", parse_err_ty = UnknownName, parse_err_fn = UnknownName::of::<Allocator>)]
pub enum Allocator {
    /// It stays with the process, as in a service that was configured for inference: no page faults
    /// in the steady state.
    Retain,
    /// The system's defaults.
    System,
}

/// The reuse distance that `latency_micros` is read at unless a run config says otherwise: 8 MiB.
pub const CONFIG_DEFAULT_REUSE_DISTANCE: u64 = 8 << 20;

/// The runtime of the agent: libtorch, called op by op as PyTorch does without a compiler.
pub const LIBTORCH_EAGER: &str = "libtorch-eager";

/// How an op is executed. A table belongs to one (hardware id, run config). The batch is no part of it: it stands
/// in each op key, so one table holds rows of several batches.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
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
    /// What runs the op: [`LIBTORCH_EAGER`], or the name of another runtime.
    #[serde(default = "libtorch_eager")]
    pub runtime: String,
    /// Version of the runtime. It was called `libtorch` when there was one runtime only.
    #[serde(alias = "libtorch")]
    pub runtime_version: String,
}

fn libtorch_eager() -> String {
    LIBTORCH_EAGER.to_owned()
}

impl RunConfig {
    /// Whether a text can be the name or the version of a runtime. Both become parts of the config's id, which is used
    /// in URLs and file names.
    pub fn is_name(text: &str) -> bool {
        let in_a_url = |b: u8| b.is_ascii_alphanumeric() || b".+_-".contains(&b);
        (1..=40).contains(&text.len()) && text.bytes().all(in_a_url)
    }

    /// What the agent runs unless it is told otherwise, with this version of libtorch: f32, contiguous, one thread,
    /// freed memory retained.
    pub fn libtorch_eager(version: &str) -> RunConfig {
        RunConfig {
            dtype: Dtype::F32,
            memory_format: MemoryFormat::Contiguous,
            threads: 1,
            allocator: Allocator::Retain,
            reuse_distance_bytes: CONFIG_DEFAULT_REUSE_DISTANCE,
            runtime: libtorch_eager(),
            runtime_version: version.to_owned(),
        }
    }

    /// The config's name in URLs and listings: every field, in a fixed order, so equal configs and only they
    /// have equal ids.
    pub fn id(&self) -> String {
        let distance = match self.reuse_distance_bytes {
            bytes if bytes % (1 << 20) == 0 => format!("{}m", bytes >> 20),
            bytes => format!("{bytes}b"),
        };
        format!(
            "{}-{}-t{}-{}-r{distance}-{}-{}",
            self.dtype,
            self.memory_format,
            self.threads,
            self.allocator,
            self.runtime,
            self.runtime_version
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_json() {
        for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16, Dtype::Int8] {
            assert_eq!(serde_json::to_value(dtype).unwrap(), dtype.to_string());
            assert_eq!(dtype.to_string().parse(), Ok(dtype));
        }
        for format in [MemoryFormat::Contiguous, MemoryFormat::ChannelsLast] {
            assert_eq!(serde_json::to_value(format).unwrap(), format.to_string());
        }
        let error = "f64".parse::<Dtype>().unwrap_err().to_string();
        assert_eq!(error, "`f64` is not known: write `f32`, `f16`, `bf16` or `int8`");
    }
}
