//! Physical limits of devices. A number beyond them is kept as a fact, but enters no table. Pure.

use latlas_shared::{Dtype, Measurement, Subject};
use ops_catalog::Op;

/// Multiply-accumulates per second above what one processor thread can make: matrix units make 1,024 of them per cycle
/// at 16 bits, and half of that in a transformed convolution at 32 bits, at 6 GHz or less.
const CPU_MACS_PER_SECOND: f64 = 6e12;

/// Bytes per second above what one processor thread can read from its nearest cache: two vectors of 64 bytes per cycle.
const CPU_BYTES_PER_SECOND: f64 = 1e12;

/// Multiply-accumulates per second above what any GPU can make at 16 bits: twice the specification of the largest GPUs.
const GPU_MACS_PER_SECOND: f64 = 2.5e15;

/// Bytes per second above what the nearest caches of any GPU deliver together.
const GPU_BYTES_PER_SECOND: f64 = 1e14;

/// Why a measurement's number is impossible; none if it is possible. An impossible number is faster than the arithmetic
/// of the op, or than reading its weights once, on any device of its kind. `op` is the op with its digest.
pub fn suspect(measurement: &Measurement, op: Option<&Op>) -> Option<String> {
    let micros = measurement.micros()?;
    let cost = match &measurement.subject {
        Subject::Op { key, .. } => op?.at(&key.shape).ok()?.cost,
        Subject::Network(network) => network.plan().ok()?.cost,
    };
    let config = &measurement.run_config;
    let bytes_per_weight = match config.dtype {
        Dtype::F32 => 4.0,
        Dtype::F16 | Dtype::Bf16 => 2.0,
        Dtype::Int8 => 1.0,
    };
    let on_gpu = measurement.hardware_id.as_str().split('.').any(|part| part == "cuda");
    let (macs, bytes) = if on_gpu {
        (GPU_MACS_PER_SECOND, GPU_BYTES_PER_SECOND)
    } else {
        let threads = f64::from(config.threads.max(1));
        (CPU_MACS_PER_SECOND * threads, CPU_BYTES_PER_SECOND * threads)
    };
    let arithmetic = 1e6 * cost.flops as f64 / macs;
    let weights = 1e6 * bytes_per_weight * cost.weight_elements as f64 / bytes;
    let bound = arithmetic.max(weights);
    (micros < bound).then(|| {
        format!("suspect: {micros:e} us is faster than any such device can be ({bound:.3} us)")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use latlas_shared::testing;
    use ops_catalog::Catalog;

    const KEY: &str = "Conv3x3:n1-h56-w56-i64-o64-s1";

    fn judged(change: impl FnOnce(&mut Measurement), micros: f64) -> Option<String> {
        let mut measurement = testing::measurement(KEY, micros);
        change(&mut measurement);
        let op = Catalog::builtin().op("Conv3x3").unwrap();
        suspect(&measurement, Some(op))
    }

    #[test]
    fn nothing_is_faster_than_its_arithmetic() {
        // 115.6 M multiply-accumulates.
        assert_eq!(judged(|_| (), 1000.0), None);
        assert_eq!(judged(|_| (), 20.0), None);
        let reason = judged(|_| (), 19.0).unwrap();
        assert!(reason.starts_with("suspect: 1.9e1 us is faster"), "{reason}");
        assert!(reason.contains("(19.268 us)"), "{reason}");
        assert_eq!(judged(|m| m.run_config.threads = 2, 19.0), None);
        assert_eq!(
            judged(|m| m.hardware_id = "tesla-t4-16gb.cuda.50w".parse().unwrap(), 1.0),
            None
        );
        assert!(judged(|m| m.latency = None, 1.0).is_none());
    }

    #[test]
    fn a_network_has_a_bound_too() {
        let network = |micros| suspect(&testing::network_measurement("resnet18", micros), None);
        assert_eq!(network(50_000.0), None);
        assert!(network(1.0).is_some());
    }

    /// The limits must be above what real devices reach: the peak of a large GPU, and of a wide processor.
    #[test]
    fn what_the_fastest_devices_do_is_no_suspect() {
        let macs = 115.6e6;
        let h100 = macs / 0.5e15 * 1e6;
        assert_eq!(
            judged(|m| m.hardware_id = "nvidia-h100-80gb.cuda".parse().unwrap(), h100),
            None
        );
        let one_thread_at_32_bits = macs / (32.0 * 5e9) * 1e6;
        assert_eq!(judged(|_| (), one_thread_at_32_bits / 4.0), None);
    }
}
