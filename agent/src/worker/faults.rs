//! Fault injection: a check of a device uses it to show that a fault costs only one row.
//!
//! `LATLAS_FAULTS` in the environment lists op keys, each with a fault that occurs before its first call:
//!
//! ```text
//! LATLAS_FAULTS="Conv3x3:n1-h56-w56-i64-o64-s1=memory Conv1x1:n1-h56-w56-i64-o64-s1=kernel"
//! ```
//!
//! `memory` asks libtorch for more memory than any device has. `kernel` lets a kernel read out of bounds: like any
//! kernel fault, this destroys a GPU's context. On a processor it is an error.

use anyhow::{Context, Result, bail};
use ops_catalog::OpKey;
use tch::{Kind, Tensor};

use super::protocol::Work;

/// More bytes than any device has; libtorch can still represent the number in 64 bits.
const TOO_MUCH: i64 = 1 << 52;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Memory,
    Kernel,
}

/// The requested faults.
#[derive(Debug, Default, PartialEq)]
pub struct Faults(Vec<(OpKey, Fault)>);

impl Faults {
    /// Reads the faults from the environment.
    ///
    /// # Errors
    /// Names the part that cannot be parsed.
    pub fn from_env() -> Result<Faults> {
        let text = std::env::var("LATLAS_FAULTS").unwrap_or_default();
        Faults::parse(&text).with_context(|| format!("LATLAS_FAULTS is `{text}`"))
    }

    fn parse(text: &str) -> Result<Faults> {
        text.split_whitespace()
            .map(|word| {
                let (key, fault) =
                    word.split_once('=').context("write KEY=memory or KEY=kernel")?;
                let fault = match fault {
                    "memory" => Fault::Memory,
                    "kernel" => Fault::Kernel,
                    _ => bail!("`{fault}` is no fault: write `memory` or `kernel`"),
                };
                Ok((key.parse::<OpKey>().with_context(|| key.to_owned())?, fault))
            })
            .collect::<Result<_>>()
            .map(Faults)
    }

    /// Triggers the fault of this work, if it has one.
    ///
    /// # Errors
    /// The error of libtorch, which is the purpose.
    pub fn strike(&self, work: &Work, device: tch::Device) -> Result<()> {
        let Work::Op { def, shape } = work else { return Ok(()) };
        let is_meant = |(key, _): &&(OpKey, Fault)| key.op == def.name && key.shape == *shape;
        match self.0.iter().find(is_meant) {
            None => Ok(()),
            Some((_, Fault::Memory)) => {
                drop(Tensor::f_empty([TOO_MUCH], (Kind::Uint8, device))?);
                Ok(())
            }
            Some((_, Fault::Kernel)) => {
                let table = Tensor::f_ones([8], (Kind::Float, device))?;
                let outside = Tensor::f_full([8], 1_000_000_i64, (Kind::Int64, device))?;
                let found = table.f_index_select(0, &outside)?.f_sum(Kind::Float)?;
                // A GPU reports the fault only when the result is read.
                f64::try_from(&found)?;
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ops_catalog::Catalog;

    const KEY: &str = "Conv3x3:n1-h8-w8-i4-o4-s1";

    fn work(key: &str) -> Work {
        let key: OpKey = key.parse().unwrap();
        let op = Catalog::builtin().op(&key.op).unwrap();
        Work::Op { def: op.def().clone(), shape: key.shape }
    }

    #[test]
    fn each_fault_strikes_its_own_work() {
        let other = work("Conv3x3:n1-h8-w8-i4-o8-s1");
        for (fault, part) in [("memory", "allocate"), ("kernel", "out of range")] {
            let faults = Faults::parse(&format!("{KEY}={fault}")).unwrap();
            let told = faults.strike(&work(KEY), tch::Device::Cpu).unwrap_err().to_string();
            assert!(told.contains(part), "{fault}: {told}");
            assert!(faults.strike(&other, tch::Device::Cpu).is_ok());
        }
        assert!(Faults::default().strike(&other, tch::Device::Cpu).is_ok());
    }

    #[test]
    fn what_is_no_fault_is_an_error() {
        assert_eq!(Faults::parse(" ").unwrap(), Faults::default());
        for text in [KEY, "Conv3x3=memory", &format!("{KEY}=fire")] {
            assert!(Faults::parse(text).is_err(), "{text}");
        }
    }
}
