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

use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, StudentsT};

/// Standard deviations of the prior: of the scale, and of the microseconds per op and per merge.
const PRIOR_SPREAD: [f64; 3] = [0.05, 3.0, 5.0];

/// The relative error of one network, as one standard deviation, that is assumed before any is
/// measured.
const ASSUMED_ERROR: f64 = 0.04;

/// As many networks is that assumption worth.
const ASSUMED_WEIGHT: f64 = 4.0;

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

/// A correction of the sum of ops, and how far off it still is.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Factor on the sum of the ops.
    pub scale: f64,
    /// Microseconds for each op.
    pub per_op_micros: f64,
    /// Microseconds for each merge of branches.
    pub per_merge_micros: f64,
    /// Standard deviation of a network's relative error.
    pub relative_error: f64,
    /// Networks that it was fitted on.
    pub networks: u32,
}

impl Default for Calibration {
    /// The plain sum, with the error that is assumed before any network is measured.
    fn default() -> Calibration {
        Calibration {
            scale: 1.0,
            per_op_micros: 0.0,
            per_merge_micros: 0.0,
            relative_error: ASSUMED_ERROR,
            networks: 0,
        }
    }
}

impl Calibration {
    /// Fits networks whose latency, in microseconds, is known. The order does not matter.
    pub fn fit(networks: &[(Features, f64)]) -> Calibration {
        // In units of the prior's spread the normal equations are well conditioned: minimize
        // |1 - X(prior + spread·z)|² / error² + |z|².
        let precision = ASSUMED_ERROR.powi(-2);
        let mut matrix = [[0.0; 3]; 3];
        let mut right = [0.0; 3];
        for (features, measured) in networks {
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
            .map(|(features, measured)| (fitted.apply(*features) / measured - 1.0).powi(2))
            .sum();
        let assumed = ASSUMED_WEIGHT * ASSUMED_ERROR.powi(2);
        fitted.relative_error =
            ((squares + assumed) / (networks.len() as f64 + ASSUMED_WEIGHT)).sqrt();
        fitted
    }

    /// Microseconds of a network. Never less than a tenth of the sum of its ops, however odd the
    /// networks were that it was fitted on.
    pub fn apply(&self, features: Features) -> f64 {
        let sum = self.scale * features.ops_micros
            + self.per_op_micros * features.ops
            + self.per_merge_micros * features.merges;
        sum.max(features.ops_micros / 10.0)
    }

    /// Half the width of the 95% interval of a network's relative error: Student's t, since the spread is
    /// itself an estimate from few networks.
    pub fn half_width(&self) -> f64 {
        let freedom = f64::from(self.networks) + ASSUMED_WEIGHT;
        let t = StudentsT::new(0.0, 1.0, freedom)
            .map(|t| t.inverse_cdf(0.975))
            .expect("there are at least four degrees of freedom");
        t * self.relative_error
    }
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

    #[test]
    fn without_networks_it_is_the_sum() {
        let none = Calibration::fit(&[]);
        assert_eq!(none, Calibration::default());
        let features = Features { ops_micros: 123.0, ops: 20.0, merges: 2.0 };
        assert_eq!(none.apply(features), 123.0);
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
            let networks: Vec<_> = all.iter().map(|&f| (f, truth.apply(f))).collect();
            let fitted = Calibration::fit(&networks);
            let off = |c: &Calibration| -> f64 {
                networks.iter().map(|(f, y)| (c.apply(*f) / y - 1.0).abs()).sum::<f64>()
            };
            let most = 0.25 * off(&Calibration::default()) + 0.003 * all.len() as f64;
            prop_assert!(off(&fitted) <= most);
            prop_assert!(fitted.relative_error < ASSUMED_ERROR);
        }

        #[test]
        fn the_order_of_networks_does_not_matter(
            all in prop::collection::vec((features(), 0.8f64..1.3), 1..20),
        ) {
            let mut networks: Vec<_> = all.iter().map(|&(f, r)| (f, f.ops_micros * r)).collect();
            let one = Calibration::fit(&networks);
            networks.reverse();
            let other = Calibration::fit(&networks);
            prop_assert!((one.scale - other.scale).abs() < 1e-9);
            prop_assert!((one.per_op_micros - other.per_op_micros).abs() < 1e-6);
        }

        /// One network never moves the answer further than to itself.
        #[test]
        fn one_network_is_not_overfitted(f in features(), ratio in 0.8f64..1.3) {
            let fitted = Calibration::fit(&[(f, f.ops_micros * ratio)]);
            let said = fitted.apply(f) / f.ops_micros;
            prop_assert!(said >= ratio.min(1.0) - 1e-9 && said <= ratio.max(1.0) + 1e-9);
        }
    }
}
