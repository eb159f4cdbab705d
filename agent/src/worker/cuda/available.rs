//! Whether this build on this machine can use a CUDA device, and the settings that go with one.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

use super::driver::DriverState;
use super::library::{self, NotLoaded};

/// What there is of CUDA.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Census {
    /// Why libtorch's CUDA library is there and cannot be loaded.
    not_loaded: Option<NotLoaded>,
    /// Whether libtorch was built for CUDA.
    libtorch_has_cuda: bool,
    driver: DriverState,
    /// Devices that libtorch can use.
    libtorch_devices: u32,
    /// `CUDA_LAUNCH_BLOCKING` of the environment.
    launch_blocking: Option<String>,
}

impl Census {
    fn take() -> Census {
        let not_loaded = library::load().err();
        let driver = DriverState::ask();
        let libtorch_has_cuda = tch::utils::has_cudart();
        // Asked only with both halves there: libtorch initializes the driver for it.
        let libtorch_devices = match driver {
            DriverState::Devices(1..) if libtorch_has_cuda && tch::Cuda::is_available() => {
                u32::try_from(tch::Cuda::device_count()).unwrap_or(0)
            }
            _ => 0,
        };
        let launch_blocking = std::env::var("CUDA_LAUNCH_BLOCKING").ok();
        Census { not_loaded, libtorch_has_cuda, driver, libtorch_devices, launch_blocking }
    }

    /// What is in the way of using a device, each a sentence; nothing when it can be used.
    fn obstacles(&self, index: u32) -> Vec<String> {
        let mut obstacles = Vec::new();
        match &self.driver {
            DriverState::Missing => obstacles.push(
                "There is no NVIDIA driver: libcuda cannot be loaded. Install the driver, or in a \
                 container hand the GPU through."
                    .to_owned(),
            ),
            DriverState::Broken(reason) => obstacles.push(format!(
                "The NVIDIA driver is there and does not work: {reason}. `nvidia-smi` may say more."
            )),
            DriverState::Devices(0) => obstacles.push(
                "The NVIDIA driver finds no GPU; see `nvidia-smi` and CUDA_VISIBLE_DEVICES."
                    .to_owned(),
            ),
            DriverState::Devices(count) if index >= *count => {
                obstacles.push(format!("The devices here are {}.", named(*count)));
            }
            DriverState::Devices(_) => {}
        }
        if let Some(reason) = &self.not_loaded {
            obstacles.push(format!(
                "The CUDA library of libtorch is there and cannot be loaded: {reason}."
            ));
        } else if !self.libtorch_has_cuda {
            obstacles.push(
                "The libtorch of this build has no CUDA: run `LATLAS_TORCH=cuda scripts/setup` and \
                 build again."
                    .to_owned(),
            );
        } else if obstacles.is_empty() && index >= self.libtorch_devices {
            obstacles.push(format!(
                "libtorch can use {} of the driver's devices. The driver may be too old for the CUDA \
                 that libtorch was built with; docs/setup.md names it.",
                self.libtorch_devices
            ));
        }
        if self.launch_blocking.as_deref().is_some_and(|value| !value.is_empty() && value != "0") {
            obstacles.push(
                "CUDA_LAUNCH_BLOCKING is set, which makes the host wait for each kernel: unset it."
                    .to_owned(),
            );
        }
        obstacles
    }
}

fn named(count: u32) -> String {
    match count {
        1 => "cuda:0 alone".to_owned(),
        _ => format!("cuda:0 to cuda:{}", count - 1),
    }
}

/// Checks that a device can be used.
///
/// # Errors
/// Says in one paragraph what is missing.
pub fn check(index: u32) -> Result<()> {
    let obstacles = Census::take().obstacles(index);
    if obstacles.is_empty() {
        return Ok(());
    }
    bail!("cuda:{index} cannot be used. {}", obstacles.join(" "))
}

/// Why a first kernel did not run, from libtorch's words, and what to do.
pub fn no_kernel(words: &str) -> String {
    let first = words.lines().next().unwrap_or_default();
    let remedy = if words.contains("no kernel image") {
        "This libtorch has no kernels for the GPU's architecture. Take one that has: docs/setup.md."
    } else if words.contains("out of memory") {
        "Other processes hold the GPU's memory; `nvidia-smi` names them."
    } else {
        "`nvidia-smi` and the system's log may say more."
    };
    format!("A first kernel did not run: {first}. {remedy}")
}

/// Settings that change latency on a CUDA device, for the fingerprint. Call it only where [`check`] has
/// found a device.
pub fn facts() -> BTreeMap<String, String> {
    let env = |name: &str| std::env::var(name).ok();
    let tf32 = tf32(
        env("NVIDIA_TF32_OVERRIDE").as_deref(),
        env("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE").as_deref(),
    );
    BTreeMap::from([
        ("cuda_runtime".to_owned(), tch::utils::version_cudart().to_string()),
        ("cudnn_autotune".to_owned(), "off".to_owned()),
        ("tf32".to_owned(), tf32.to_owned()),
    ])
}

/// Which f32 operations may use 10 instead of 23 bits of mantissa, on devices that can. libtorch allows it
/// for convolutions and not for matrix products; its binding to Rust cannot change that, but two
/// variables of the environment do.
fn tf32(nvidia_override: Option<&str>, cublas_override: Option<&str>) -> &'static str {
    match (nvidia_override, cublas_override) {
        (Some("0"), _) => "off",
        (_, Some("1")) => "convolutions, matrix products",
        _ => "convolutions",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn census(driver: DriverState, libtorch_devices: u32) -> Census {
        Census {
            not_loaded: None,
            libtorch_has_cuda: true,
            driver,
            libtorch_devices,
            launch_blocking: None,
        }
    }

    fn told(census: &Census, index: u32) -> String {
        census.obstacles(index).join(" ")
    }

    #[test]
    fn a_device_that_both_can_use_is_fine() {
        assert_eq!(told(&census(DriverState::Devices(2), 2), 1), "");
        let zero =
            Census { launch_blocking: Some("0".into()), ..census(DriverState::Devices(1), 1) };
        assert_eq!(told(&zero, 0), "");
    }

    #[test]
    fn each_obstacle_is_named_with_its_remedy() {
        let cases = [
            (census(DriverState::Missing, 0), 0, "libcuda cannot be loaded"),
            (census(DriverState::Broken("it answers STUB_LIBRARY".into()), 0), 0, "STUB_LIBRARY"),
            (census(DriverState::Devices(0), 0), 0, "finds no GPU"),
            (census(DriverState::Devices(1), 1), 1, "The devices here are cuda:0 alone."),
            (census(DriverState::Devices(3), 3), 3, "The devices here are cuda:0 to cuda:2."),
            (census(DriverState::Devices(1), 0), 0, "too old"),
            (
                Census { launch_blocking: Some("1".into()), ..census(DriverState::Devices(1), 1) },
                0,
                "CUDA_LAUNCH_BLOCKING",
            ),
        ];
        for (census, index, expected) in cases {
            let text = told(&census, index);
            assert!(text.contains(expected), "{census:?}: {text}");
            assert_eq!(census.obstacles(index).len(), 1, "{text}");
        }
    }

    #[test]
    fn a_first_kernel_that_does_not_run_has_a_remedy() {
        let words = "CUDA error: no kernel image is available for execution on the device\nCUDA kernel errors might";
        let text = no_kernel(words);
        assert!(text.contains("for the GPU's architecture") && !text.contains("might"), "{text}");
        assert!(no_kernel("CUDA out of memory. Tried").contains("hold the GPU's memory"));
        assert!(no_kernel("CUDA error: unknown").contains("nvidia-smi"));
    }

    #[test]
    fn all_that_is_missing_is_said_at_once() {
        let census = Census { libtorch_has_cuda: false, ..census(DriverState::Missing, 0) };
        let text = told(&census, 0);
        assert!(text.contains("libcuda") && text.contains("LATLAS_TORCH=cuda"), "{text}");
    }

    #[test]
    fn tf32_follows_the_environment() {
        assert_eq!(tf32(None, None), "convolutions");
        assert_eq!(tf32(Some("1"), Some("0")), "convolutions");
        assert_eq!(tf32(None, Some("1")), "convolutions, matrix products");
        assert_eq!(tf32(Some("0"), Some("1")), "off");
    }
}
