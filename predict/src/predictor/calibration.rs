//! What whole networks cost beyond the sum of their ops, fitted on whole networks that were measured on
//! the same hardware.
//!
//! A sum of rows lacks what happens between ops: dispatch, allocation, branches that come together. The
//! model is linear in three features of a network, and few networks must do:
//!
//! ```text
//! latency = scale · (sum of the ops) + per_op · (number of ops) + per_merge · (number of merges)
//! ```
//!
//! It is fitted on relative errors by Bayesian linear regression with a normal prior (Gelman et al.,
//! Bayesian Data Analysis, 14.8): scale 1 ± 5%, per op 0 ± 3 microseconds, per merge 0 ± 5. With no network
//! the prior is the answer, which is the plain sum; with five it moves a little, with twenty the
//! networks decide.
//!
//! A network that is far off, since one of its rows or its own measurement is wrong, must not spoil the
//! predictions of all others. It counts as much as one at the bound would, which is found by fitting again
//! (iteratively reweighted least squares; Huber and Ronchetti, Robust Statistics, 7.8). Where many are far
//! off, so is the bound, and the error that is told is large.

use latlas_shared::{ASSUMED_ERROR, Calibration};
use statrs::distribution::{ContinuousCDF, StudentsT};

use crate::stats;

/// Standard deviations of the prior: of the scale, and of the microseconds per op and per merge.
const PRIOR_SPREAD: [f64; 3] = [0.05, 3.0, 5.0];

/// As many networks is that assumption worth.
const ASSUMED_WEIGHT: f64 = 4.0;

/// Errors beyond this many standard deviations count as if they were so large.
const BOUND: f64 = 3.0;

/// The standard deviation of normal errors over the median of their sizes.
const MEDIAN_TO_SPREAD: f64 = 1.4826;

/// Fits until the weights stay as they are, at most so often. Without a network that is far off it is one.
const ROUNDS: usize = 50;

/// What a prediction starts from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Features {
    /// Sum of the ops, in microseconds.
    pub ops_micros: f64,
    /// Number of ops, merges among them.
    pub ops: f64,
    /// Number of merges: places where branches come together.
    pub merges: f64,
}

impl Features {
    fn values(self) -> [f64; 3] {
        [self.ops_micros, self.ops, self.merges]
    }
}

/// Fits networks whose latency, in microseconds, is known. The order does not matter.
pub fn fit(networks: &[(Features, f64)]) -> Calibration {
    let mut fitted = start(networks);
    let mut weights: Vec<f64> = Vec::new();
    for _ in 0..ROUNDS {
        let next: Vec<f64> = networks.iter().map(|network| weight(&fitted, network)).collect();
        let close = |(new, old): (&f64, &f64)| (new - old).abs() < 1e-9;
        if !weights.is_empty() && next.iter().zip(&weights).all(close) {
            break;
        }
        fitted = fit_weighted(networks, &next);
        weights = next;
    }
    fitted
}

/// The plain sum, with what its error usually is here. A fit of everything would be no start: one
/// network with a latency that is far too small draws all of it there.
fn start(networks: &[(Features, f64)]) -> Calibration {
    let plain = Calibration::default();
    let errors: Vec<f64> = networks.iter().map(|network| error_of(&plain, network).abs()).collect();
    let usual = if errors.is_empty() { 0.0 } else { MEDIAN_TO_SPREAD * stats::median(&errors) };
    Calibration { relative_error: usual.max(ASSUMED_ERROR), ..plain }
}

fn error_of(calibration: &Calibration, (features, measured): &(Features, f64)) -> f64 {
    apply(calibration, *features) / measured - 1.0
}

/// 1 within the bound, and beyond it what makes an error count as one at the bound.
fn weight(calibration: &Calibration, network: &(Features, f64)) -> f64 {
    (BOUND * calibration.relative_error / error_of(calibration, network).abs()).min(1.0).powi(2)
}

fn fit_weighted(networks: &[(Features, f64)], weights: &[f64]) -> Calibration {
    // In units of the prior's spread the normal equations are well conditioned: minimize
    // |1 - X(prior + spread·z)|² / error² + |z|².
    let mut matrix = [[0.0; 3]; 3];
    let mut right = [0.0; 3];
    for ((features, measured), weight) in networks.iter().zip(weights) {
        let precision = weight * ASSUMED_ERROR.powi(-2);
        let x = features.values().map(|value| value / measured);
        let residual = 1.0 - x[0];
        let x: [f64; 3] = std::array::from_fn(|i| x[i] * PRIOR_SPREAD[i]);
        for i in 0..3 {
            right[i] += precision * x[i] * residual;
            for j in 0..3 {
                matrix[i][j] += precision * x[i] * x[j];
            }
        }
    }
    for (i, row) in matrix.iter_mut().enumerate() {
        row[i] += 1.0;
    }
    let z = solve(matrix, right);
    let mut fitted = Calibration {
        scale: 1.0 + PRIOR_SPREAD[0] * z[0],
        per_op_micros: PRIOR_SPREAD[1] * z[1],
        per_merge_micros: PRIOR_SPREAD[2] * z[2],
        networks: u32::try_from(networks.len()).unwrap_or(u32::MAX),
        ..Calibration::default()
    };
    let squares: f64 = networks
        .iter()
        .zip(weights)
        .map(|(network, weight)| weight * error_of(&fitted, network).powi(2))
        .sum();
    let assumed = ASSUMED_WEIGHT * ASSUMED_ERROR.powi(2);
    fitted.relative_error = ((squares + assumed) / (networks.len() as f64 + ASSUMED_WEIGHT)).sqrt();
    fitted
}

/// Microseconds of a network. Never less than a tenth of the sum of its ops, however odd the
/// networks were that it was fitted on.
pub fn apply(calibration: &Calibration, features: Features) -> f64 {
    let sum = calibration.scale * features.ops_micros
        + calibration.per_op_micros * features.ops
        + calibration.per_merge_micros * features.merges;
    sum.max(features.ops_micros / 10.0)
}

/// Half the width of the 95% interval of a network's relative error: Student's t, since the spread is
/// itself an estimate from few networks.
pub fn half_width(calibration: &Calibration) -> f64 {
    let freedom = f64::from(calibration.networks) + ASSUMED_WEIGHT;
    let t = StudentsT::new(0.0, 1.0, freedom)
        .map(|t| t.inverse_cdf(0.975))
        .expect("there are at least four degrees of freedom");
    t * calibration.relative_error
}

/// Solves a positive definite system by elimination, which needs no pivoting for such a one.
fn solve(mut matrix: [[f64; 3]; 3], mut right: [f64; 3]) -> [f64; 3] {
    for i in 0..3 {
        for below in i + 1..3 {
            let factor = matrix[below][i] / matrix[i][i];
            let row = matrix[i];
            for (target, value) in matrix[below].iter_mut().zip(row) {
                *target -= factor * value;
            }
            right[below] -= factor * right[i];
        }
    }
    for i in (0..3).rev() {
        let known: f64 = (i + 1..3).map(|j| matrix[i][j] * right[j]).sum();
        right[i] = (right[i] - known) / matrix[i][i];
    }
    right
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn features() -> impl Strategy<Value = Features> {
        (100.0f64..1e5, 5.0f64..100.0, 0.0f64..20.0)
            .prop_map(|(ops_micros, ops, merges)| Features { ops_micros, ops, merges })
    }

    /// With ops so long that no network is explained by microseconds per op alone.
    fn usual() -> impl Strategy<Value = Features> {
        (50.0f64..1e3, 5.0f64..100.0, 0.0f64..20.0).prop_map(|(micros, ops, merges)| Features {
            ops_micros: micros * ops,
            ops,
            merges,
        })
    }

    #[test]
    fn without_networks_it_is_the_sum() {
        let none = fit(&[]);
        assert_eq!(none, Calibration::default());
        let features = Features { ops_micros: 123.0, ops: 20.0, merges: 2.0 };
        assert_eq!(apply(&none, features), 123.0);
    }

    #[test]
    fn systems_are_solved() {
        let x = solve([[4.0, 1.0, 0.5], [1.0, 3.0, 0.2], [0.5, 0.2, 2.0]], [6.5, 7.3, 5.9]);
        // By hand: 4a + b + c/2 = 6.5, a + 3b + c/5 = 7.3, a/2 + b/5 + 2c = 5.9.
        assert!((4.0 * x[0] + x[1] + 0.5 * x[2] - 6.5).abs() < 1e-12);
        assert!((x[0] + 3.0 * x[1] + 0.2 * x[2] - 7.3).abs() < 1e-12);
        assert!((0.5 * x[0] + 0.2 * x[1] + 2.0 * x[2] - 5.9).abs() < 1e-12);
    }

    proptest! {
        /// Many networks that obey the model are predicted by what was fitted on them, whatever the prior.
        #[test]
        fn a_true_model_is_found(
            all in prop::collection::vec(features(), 40..60),
            scale in 0.97f64..1.05,
            per_op in 0.0f64..4.0,
        ) {
            let truth = Calibration { scale, per_op_micros: per_op, ..Calibration::default() };
            let networks: Vec<_> = all.iter().map(|&f| (f, apply(&truth, f))).collect();
            let fitted = fit(&networks);
            let off = |c: &Calibration| -> f64 {
                networks.iter().map(|(f, y)| (apply(c, *f) / y - 1.0).abs()).sum::<f64>()
            };
            let most = 0.25 * off(&Calibration::default()) + 0.003 * all.len() as f64;
            prop_assert!(off(&fitted) <= most);
            prop_assert!(fitted.relative_error < ASSUMED_ERROR);
        }

        /// Whatever happened to one network in twenty, the predictions of others move by less than a quarter, where it
        /// is the only one with many merges and pulls their cost along, and their intervals become less than twice as wide.
        #[test]
        fn one_network_that_is_far_off_spoils_no_other(
            all in prop::collection::vec((usual(), -0.05f64..0.05), 20..40),
            factor in prop_oneof![0.05f64..0.5, 2.0f64..20.0],
        ) {
            let networks: Vec<_> =
                all.iter().map(|&(f, error)| (f, f.ops_micros * (1.0 + error))).collect();
            let mut spoiled = networks.clone();
            spoiled[0].1 *= factor;
            let (clean, fitted) = (fit(&networks[1..]), fit(&spoiled));
            prop_assert!(fitted.relative_error < 2.0 * clean.relative_error, "{fitted:?} {clean:?}");
            for &(features, _) in &networks[1..] {
                let moved = apply(&fitted, features) / apply(&clean, features) - 1.0;
                prop_assert!(moved.abs() < 0.25, "{moved} {fitted:?} {clean:?}");
            }
        }

        /// Networks that are far off in all directions are no exceptions.
        #[test]
        fn a_model_that_does_not_hold_says_so(
            all in prop::collection::vec(features(), 20..40),
        ) {
            let off = [0.5, 1.0, 1.6, 0.7, 1.4];
            let networks: Vec<_> =
                all.iter().zip(off.iter().cycle()).map(|(&f, r)| (f, f.ops_micros * r)).collect();
            let fitted = fit(&networks);
            let off = |f: &Features, measured: f64| (apply(&fitted, *f) / measured - 1.0).abs();
            let inside = networks.iter().filter(|(f, y)| off(f, *y) <= half_width(&fitted)).count();
            prop_assert!(inside * 10 >= networks.len() * 9, "{inside} of {}", networks.len());
        }

        #[test]
        fn the_order_of_networks_does_not_matter(
            all in prop::collection::vec((features(), 0.8f64..1.3), 1..20),
        ) {
            let mut networks: Vec<_> = all.iter().map(|&(f, r)| (f, f.ops_micros * r)).collect();
            let one = fit(&networks);
            networks.reverse();
            let other = fit(&networks);
            prop_assert!((one.scale - other.scale).abs() < 1e-9);
            prop_assert!((one.per_op_micros - other.per_op_micros).abs() < 1e-6);
        }

        /// One network never moves the answer further than to itself.
        #[test]
        fn one_network_is_not_overfitted(f in features(), ratio in 0.8f64..1.3) {
            let fitted = fit(&[(f, f.ops_micros * ratio)]);
            let said = apply(&fitted, f) / f.ops_micros;
            prop_assert!(said >= ratio.min(1.0) - 1e-9 && said <= ratio.max(1.0) + 1e-9);
        }
    }
}
