use super::*;
use crate::testing::Chance;
use proptest::prelude::*;

/// A device: the costs of its networks beyond the ops, and the footprint at which its rows are to be read.
#[derive(Debug, Clone, Copy)]
struct Device {
    scale: f64,
    footprint_mib: f64,
    per_op_micros: f64,
    /// Relative error that no feature explains.
    error: f64,
}

const QUICKEST: f64 = 5.0;

/// The prior of a table of libtorch.
fn eager() -> Prior {
    Prior::new(LIBTORCH_EAGER, QUICKEST)
}

/// A network of this many ops whose sum grows by a share between the footprints 0 and 32 MiB, and stays constant
/// beyond.
fn network(ops: f64, micros: f64, cold_share: f64, rows_error: f64) -> impl Fn(f64) -> Features {
    move |mib: f64| {
        let slope = micros * cold_share / 32.0;
        Features {
            ops_micros: micros + slope * mib.min(32.0),
            micros_per_mib: if mib < 32.0 { slope } else { 0.0 },
            unquiet_micros: 0.02 * micros,
            ops,
            merges: 0.0,
            rows_error,
        }
    }
}

impl Device {
    fn example(&self, features: impl Fn(f64) -> Features, error: f64) -> Example {
        let at = features(self.footprint_mib);
        let model = self.scale * at.ops_micros + self.per_op_micros * at.ops;
        Example {
            features: FOOTPRINTS.map(features),
            measured_micros: model * (1.0 + self.error * error),
        }
    }
}

/// A network of a device.
fn drawn(chance: &mut Chance, device: &Device) -> Example {
    let ops = chance.between(15.0, 60.0).round();
    let cold = chance.between(0.02, 0.25);
    let micros = ops * chance.between(60.0, 600.0);
    let error = chance.normal();
    device.example(network(ops, micros, cold, 0.005), error)
}

fn error(calibration: &Calibration, example: &Example) -> f64 {
    example.predicted(calibration).latency / example.measured_micros - 1.0
}

fn covered(calibration: &Calibration, example: &Example) -> bool {
    let Micros { low, high, .. } = example.predicted(calibration);
    (low..=high).contains(&example.measured_micros)
}

/// Over devices that the prior allows for, an interval has its stated coverage, whatever it was fitted on.
#[test]
fn intervals_cover_on_devices_that_nobody_tuned_to() {
    let mut chance = Chance::new(17);
    for (fitted_on, widest) in [(0, 0.14), (5, 0.10), (20, 0.08), (60, 0.08)] {
        let (mut inside, mut width, mut judged) = (0, 0.0, 0);
        for _ in 0..120 {
            let device = Device {
                scale: 1.0 + 0.02 * chance.normal(),
                footprint_mib: (12.0 + 4.5 * chance.normal()).max(0.0),
                per_op_micros: 1.5 * chance.normal(),
                error: 0.025,
            };
            let networks: Vec<Example> =
                (0..fitted_on).map(|_| drawn(&mut chance, &device)).collect();
            let calibration = fit(&networks, &eager());
            for _ in 0..20 {
                let example = drawn(&mut chance, &device);
                let Micros { low, latency, high } = example.predicted(&calibration);
                inside += i32::from(covered(&calibration, &example));
                width += (high - low) / 2.0 / latency;
                judged += 1;
            }
        }
        let (share, width) = (f64::from(inside) / f64::from(judged), width / f64::from(judged));
        assert!(
            (0.92..=0.985).contains(&share),
            "{fitted_on} networks: {share} inside, {width} wide"
        );
        assert!(width <= widest, "{fitted_on} networks: {width} wide");
    }
}

/// A footprint beyond the range of the prior is found, and the networks are predicted.
#[test]
fn a_footprint_is_found() {
    let mut chance = Chance::new(3);
    for footprint_mib in [0.0, 5.0, 12.0, 20.0, 27.0] {
        let device = Device { scale: 1.0, footprint_mib, per_op_micros: 0.0, error: 0.002 };
        let networks: Vec<Example> = (0..100).map(|_| drawn(&mut chance, &device)).collect();
        let calibration = fit(&networks, &eager());
        // The prior has the weight of four networks with an error of 2.5%.
        assert!((calibration.footprint_mib - footprint_mib).abs() < 3.0, "{calibration:?}");
        let errors = networks.iter().map(|one| error(&calibration, one).abs());
        assert!(errors.sum::<f64>() / 100.0 < 0.01, "{footprint_mib}: {calibration:?}");
    }
}

/// A runtime that compiles graphs: its rows add up to more than a network, and the prior says so.
#[test]
fn rows_of_a_runtime_of_graphs_add_up_to_more_than_a_network() {
    let mut chance = Chance::new(5);
    let prior = Prior::new("onnxruntime", QUICKEST);
    let (mut before, mut after) = (0, 0);
    for _ in 0..200 {
        let device = Device {
            scale: 0.95 + 0.05 * chance.normal(),
            footprint_mib: 12.0,
            per_op_micros: QUICKEST * (-1.0 + chance.normal()),
            error: 0.03,
        };
        let five: Vec<Example> = (0..5).map(|_| drawn(&mut chance, &device)).collect();
        let example = drawn(&mut chance, &device);
        before += i32::from(covered(&uncalibrated(&prior), &example));
        after += i32::from(covered(&fit(&five, &prior), &example));
        let plain = example.predicted(&uncalibrated(&prior));
        assert!(plain.latency < example.predicted(&uncalibrated(&eager())).latency);
    }
    assert!(before >= 180 && after >= 180, "{before} and {after} of 200 inside");
}

#[test]
fn without_networks_it_is_the_prior() {
    assert_eq!(fit(&[], &eager()), uncalibrated(&eager()));
    let features = network(20.0, 1000.0, 0.1, 0.01)(12.0);
    let Estimate { micros, error } = apply(&uncalibrated(&eager()), &features);
    assert!((micros - 1037.5).abs() < 1e-9, "{micros}");
    assert_eq!((error.rows, error.model), (0.01, MODEL_ERROR));
}

/// Huber's problem is convex: the fit ends at its fixed point.
#[test]
fn a_fit_is_settled() {
    let mut chance = Chance::new(29);
    for count in [1, 2, 5, 20, 60] {
        let device = Device { scale: 1.05, footprint_mib: 17.0, per_op_micros: 2.0, error: 0.1 };
        let networks: Vec<Example> = (0..count).map(|_| drawn(&mut chance, &device)).collect();
        let fitted = fit(&networks, &eager());
        let spread = eager().spread;
        let means = Vector::from([
            fitted.scale,
            fitted.footprint_mib,
            fitted.unquiet,
            fitted.per_op_micros,
            fitted.per_merge_micros,
        ]);
        let covariance = Matrix::from_fn(|i, j| fitted.covariance[i][j]);
        let (again, _) = step(&networks, &Fit { means, covariance, noise: fitted.noise }, &eager());
        for i in 0..COEFFICIENTS {
            let moved = (again.means[i] - means[i]).abs() / spread[i];
            assert!(moved < 1e-3, "{count} networks, coefficient {i}: {moved}");
        }
        assert!((again.noise / fitted.noise - 1.0).abs() < 1e-3, "{count} networks");
    }
}

fn examples(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Example>> {
    let one = (60.0f64..600.0, 15.0f64..60.0, 0.0f64..0.25, -0.05f64..0.05);
    prop::collection::vec(one, count).prop_map(|all| {
        let device = Device { scale: 1.0, footprint_mib: 12.0, per_op_micros: 0.0, error: 1.0 };
        all.into_iter()
            .map(|(micros, ops, cold, error)| {
                device.example(network(ops, micros * ops, cold, 0.01), error)
            })
            .collect()
    })
}

proptest! {
    /// Whatever happened to one network in twenty, the predictions of the others hardly change, and their intervals
    /// become less than twice as wide.
    #[test]
    fn one_network_that_is_far_off_spoils_no_other(
        clean in examples(20..40),
        factor in prop_oneof![0.05f64..0.5, 2.0f64..20.0],
    ) {
        let mut spoiled = clean.clone();
        spoiled[0].measured_micros *= factor;
        let (one, other) = (fit(&clean[1..], &eager()), fit(&spoiled, &eager()));
        for example in &clean[1..] {
            let (one, other) = (example.predicted(&one), example.predicted(&other));
            prop_assert!((other.latency / one.latency - 1.0).abs() < 0.05, "{one:?} {other:?}");
            let width = |micros: Micros| (micros.high / micros.low).ln();
            prop_assert!(width(other) < 2.0 * width(one), "{one:?} {other:?}");
        }
    }

    /// Networks that are far off in all directions are not outliers.
    #[test]
    fn a_model_that_does_not_hold_says_so(mut all in examples(20..60)) {
        for (network, factor) in all.iter_mut().zip([0.5, 1.0, 1.6, 0.7, 1.4].iter().cycle()) {
            network.measured_micros *= factor;
        }
        let fitted = fit(&all, &eager());
        let inside = all.iter().filter(|one| covered(&fitted, one)).count();
        prop_assert!(inside * 10 >= all.len() * 9, "{inside} of {}: {fitted:?}", all.len());
    }

    #[test]
    fn the_order_of_networks_does_not_matter(mut networks in examples(1..20)) {
        let one = fit(&networks, &eager());
        networks.reverse();
        let other = fit(&networks, &eager());
        prop_assert!((one.scale - other.scale).abs() < 1e-6);
        prop_assert!((one.footprint_mib - other.footprint_mib).abs() < 1e-3);
        prop_assert!((one.noise / other.noise - 1.0).abs() < 1e-3);
    }

    /// One network never moves the prediction beyond its own latency.
    #[test]
    fn one_network_is_not_overfitted(networks in examples(1..2), ratio in 0.8f64..1.3) {
        let mut one = networks[0].clone();
        let plain = one.predicted(&uncalibrated(&eager())).latency;
        one.measured_micros = plain * ratio;
        let said = one.predicted(&fit(&[one.clone()], &eager())).latency / plain;
        prop_assert!(said >= ratio.min(1.0) - 1e-6 && said <= ratio.max(1.0) + 1e-6, "{said}");
    }
}
