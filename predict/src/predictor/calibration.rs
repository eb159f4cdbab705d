//! The latency of a whole network from the sum of its ops: a linear model whose coefficients are learned for
//! each hardware from networks that were measured as a whole.
//!
//! ```text
//! latency = scale · ops(W + footprint) + unquiet · disturbance + per_op · (ops) + per_merge · (merges)
//! ```
//!
//! `ops(D)` is the sum of the rows at reuse distance `D`, and `W` the weights of the network. `disturbance` is
//! the sum of the differences between median and quiet quantile of the rows: on a busy machine a single op
//! finds quiet moments, and a network of many ops finds fewer. `footprint` enters through the slope of `ops`.
//!
//! **Fit.** Bayesian linear regression on relative errors (Gelman et al., Bayesian Data Analysis, 14.8), with a normal
//! prior for the five coefficients. The footprint is not linear, so the regression is repeated at the fitted footprint
//! (Gauss and Newton). Without networks the result is the prior. The prior is not specific to one processor: it is as
//! wide as the differences between the measured processors, and the unit of `per_op` and `per_merge` is the fastest row
//! of the table.
//!
//! **Outliers.** Huber's weights (Huber and Ronchetti, Robust Statistics, 7.8): a network beyond the bound has the same
//! influence as one at the bound. Errors are relative to the prior's prediction and not to the measured latency, so one
//! wrong measurement has no leverage. At one footprint and noise the problem is convex, and has one solution.
//!
//! **Interval.** The variance of a prediction has three parts: the covariance of the coefficients, the errors of the
//! rows, and an error of the model. The last two are scaled together by `noise`, which is fitted to the errors of
//! left-out networks, so the noise of rows counts once. From [`CONFORMAL_FROM`] networks on, the interval is as wide as
//! needed to contain 95% of the left-out networks (Vovk et al., Algorithmic Learning in a Random World, 2.2); with
//! fewer, its width follows Student's t.

use latlas_shared::{Calibration, LIBTORCH_EAGER, Uncertainty};
use nalgebra::{SMatrix, SVector};

use super::NORMAL_95;
use crate::stats;

/// Number of coefficients.
const COEFFICIENTS: usize = Calibration::COEFFICIENTS;

type Vector = SVector<f64, COEFFICIENTS>;
type Matrix = SMatrix<f64, COEFFICIENTS, COEFFICIENTS>;

/// Index of the footprint among the coefficients.
const FOOTPRINT: usize = 1;

/// What is assumed about the coefficients of a table before a network was measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Prior {
    means: Vector,
    /// Standard deviations.
    spread: Vector,
}

impl Prior {
    /// The prior for a table's runtime. `quickest_micros` is the latency of the table's fastest row.
    pub fn new(runtime: &str, quickest_micros: f64) -> Prior {
        let (means, spread) = if runtime == LIBTORCH_EAGER { OP_BY_OP } else { WHOLE_GRAPHS };
        let units = [1.0, 1.0, 1.0, quickest_micros, quickest_micros];
        let scaled = |values: [f64; COEFFICIENTS]| Vector::from_fn(|i, _| values[i] * units[i]);
        Prior { means: scaled(means), spread: scaled(spread) }
    }

    fn covariance(&self) -> Matrix {
        Matrix::from_diagonal(&self.spread.component_mul(&self.spread))
    }
}

/// Means and standard deviations: scale, footprint in MiB, unquiet share; costs per op and per merge in units of the
/// table's fastest row.
type Assumed = ([f64; COEFFICIENTS], [f64; COEFFICIENTS]);

/// A runtime that calls one op after the other. Two kinds of processors were measured: the footprint was 8 to 12 MiB on
/// one and 17 on the other (`docs/predict-method.md`).
const OP_BY_OP: Assumed = ([1.0, 12.0, 0.0, 0.0, 0.0], [0.02, 3.5, 0.15, 0.5, 0.5]);

/// A runtime that compiles a graph. It fuses ops, and a row has the way into its layout of maps and back, which a
/// network has once: rows add up to more than a network. The means and spreads include ONNX Runtime in float32 and int8
/// (`docs/runtimes.md`).
const WHOLE_GRAPHS: Assumed = ([0.95, 12.0, 0.0, -1.0, -0.5], [0.05, 6.0, 0.15, 1.0, 1.0]);

/// Relative error of the model itself, as one standard deviation, before it is learned.
pub const MODEL_ERROR: f64 = 0.025;

/// The weight of that assumption, in networks.
const ASSUMED_WEIGHT: f64 = 6.0;

/// Errors beyond this many standard deviations count as if they were at this bound.
const BOUND: f64 = 2.0;

/// The mean square of a standard normal variable after bounding: the mean of `min(z², BOUND²)`.
const BOUNDED_SQUARE: f64 = 0.920_5;

/// From this many networks on, an interval is based on the ranks of their errors. At this number, the rank of 95%
/// leaves one network out, so a single wrong network does not decide.
pub const CONFORMAL_FROM: usize = 39;

/// Ratio of the standard deviation of normal errors to the median of their absolute values.
const MEDIAN_TO_SPREAD: f64 = 1.4826;

/// The most iterations of a fit. Most need five to ten.
const ROUNDS: usize = 100;

/// Footprints at which the sums of a network must be known for a fit, in MiB.
pub const FOOTPRINTS: [f64; 9] = [0.0, 4.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0];

/// The input of a prediction: the ops of a network at one footprint. Times are microseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Features {
    /// Sum of the ops; on a GPU, the result of the two-clock model.
    pub ops_micros: f64,
    /// Its increase per MiB of footprint.
    pub micros_per_mib: f64,
    /// Sum of the differences between median and quiet quantile.
    pub unquiet_micros: f64,
    /// Number of ops, including merges.
    pub ops: f64,
    /// Number of merges: places where branches join.
    pub merges: f64,
    /// Relative standard deviation of the sum due to the errors of the rows.
    pub rows_error: f64,
}

/// A network with a known latency.
#[derive(Debug, Clone)]
pub struct Example {
    /// Its features at each of [`FOOTPRINTS`].
    pub features: [Features; FOOTPRINTS.len()],
    /// Its measured latency, in microseconds.
    pub measured_micros: f64,
}

impl Example {
    /// The prediction of a calibration for it.
    pub fn predicted(&self, calibration: &Calibration) -> Micros {
        apply(calibration, &self.at(calibration.footprint_mib)).interval(calibration)
    }

    /// The features at any footprint, linear between the known ones. The slope is that of the sums.
    fn at(&self, mib: f64) -> Features {
        let last = FOOTPRINTS.len() - 1;
        let next = FOOTPRINTS.iter().position(|&known| mib < known).unwrap_or(last).max(1);
        let (a, b) = (&self.features[next - 1], &self.features[next]);
        let width = FOOTPRINTS[next] - FOOTPRINTS[next - 1];
        let share = ((mib - FOOTPRINTS[next - 1]) / width).clamp(0.0, 1.0);
        let between = |a: f64, b: f64| a + (b - a) * share;
        Features {
            ops_micros: between(a.ops_micros, b.ops_micros),
            micros_per_mib: (b.ops_micros - a.ops_micros) / width,
            unquiet_micros: between(a.unquiet_micros, b.unquiet_micros),
            rows_error: between(a.rows_error, b.rows_error),
            ..*a
        }
    }
}

/// A latency with its error.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The latency in microseconds.
    pub micros: f64,
    /// Standard deviations of its relative error.
    pub error: Uncertainty,
}

/// A latency and its interval, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Micros {
    /// Lower end of the 95% interval.
    pub low: f64,
    /// The latency.
    pub latency: f64,
    /// Upper end.
    pub high: f64,
}

impl Estimate {
    /// The 95% interval. Its ends are factors, since an error of 100% does not mean a latency of 0.
    pub fn interval(&self, calibration: &Calibration) -> Micros {
        let Uncertainty { rows, calibration: coefficients, model } = self.error;
        let noise = calibration.reach * rows.hypot(model);
        let factor = noise.hypot(NORMAL_95 * coefficients).exp();
        Micros { low: self.micros / factor, latency: self.micros, high: self.micros * factor }
    }
}

/// The calibration of a table without networks.
pub fn uncalibrated(prior: &Prior) -> Calibration {
    calibration(&prior.means, &prior.covariance(), 1.0, t(0), 0)
}

fn calibration(
    means: &Vector,
    covariance: &Matrix,
    noise: f64,
    reach: f64,
    networks: usize,
) -> Calibration {
    Calibration {
        scale: means[0],
        footprint_mib: means[FOOTPRINT],
        unquiet: means[2],
        per_op_micros: means[3],
        per_merge_micros: means[4],
        covariance: std::array::from_fn(|i| std::array::from_fn(|j| covariance[(i, j)])),
        noise,
        reach,
        networks: u32::try_from(networks).unwrap_or(u32::MAX),
    }
}

/// Student's t, since the noise level is itself an estimate.
fn t(networks: usize) -> f64 {
    stats::student_t_975(networks as f64 + ASSUMED_WEIGHT)
}

/// The state of a fit after one iteration.
#[derive(Clone, Copy)]
struct Fit {
    means: Vector,
    covariance: Matrix,
    noise: f64,
}

/// An example at the footprint of an iteration, relative to the prior's prediction.
struct Scaled {
    x: Vector,
    y: f64,
    /// The measured value; `y` differs from it by the footprint of the iteration.
    measured: f64,
    /// Variance at noise 1.
    variance: f64,
}

impl Scaled {
    fn of(example: &Example, footprint_mib: f64, prior: &Prior) -> Scaled {
        let features = example.at(footprint_mib);
        // At the prior's footprint in every iteration: a target that moves with the fit would favour small footprints.
        let reference = example.at(prior.means[FOOTPRINT]).ops_micros;
        let x = coefficients_of(&features) / reference;
        // The sum is taken at the footprint of this iteration; a shift is counted from there.
        let measured = example.measured_micros / reference;
        let y = measured + x[FOOTPRINT] * footprint_mib;
        Scaled { x, y, measured, variance: features.rows_error.powi(2) + MODEL_ERROR.powi(2) }
    }

    fn error(&self, fit: &Fit) -> f64 {
        self.y - self.x.dot(&fit.means)
    }

    /// 1 within the bound. Beyond it, the weight that gives an error the influence of one at the bound.
    fn weight(&self, fit: &Fit) -> f64 {
        (BOUND * fit.noise * self.variance.sqrt() / self.error(fit).abs()).min(1.0)
    }

    /// The error of this example if it had been left out of the fit (Sherman and Morrison); the fit included it with
    /// this weight.
    fn left_out(&self, fit: &Fit, weight: f64) -> LeftOut {
        let noise = self.variance * fit.noise.powi(2);
        let spread = (self.x.transpose() * fit.covariance * self.x)[(0, 0)];
        // The other networks contribute at least the prior, so this is above 0.
        let kept = 1.0 - spread * weight / noise;
        LeftOut {
            measured: self.measured,
            error: self.error(fit) / kept,
            noise,
            coefficients: spread / kept,
        }
    }
}

/// The error of a left-out example, with the parts of its variance.
struct LeftOut {
    measured: f64,
    error: f64,
    noise: f64,
    coefficients: f64,
}

fn coefficients_of(features: &Features) -> Vector {
    Vector::from([
        features.ops_micros,
        features.micros_per_mib,
        features.unquiet_micros,
        features.ops,
        features.merges,
    ])
}

/// Fits networks with known latencies. The order does not matter.
pub fn fit(networks: &[Example], prior: &Prior) -> Calibration {
    if networks.is_empty() {
        return uncalibrated(prior);
    }
    let mut fit = start(networks, prior);
    let mut left_out = Vec::new();
    for round in 0..ROUNDS {
        let next;
        (next, left_out) = step(networks, &fit, prior);
        let change = |i: usize| (next.means[i] - fit.means[i]).abs() / prior.spread[i];
        let settled = (0..COEFFICIENTS).all(|i| change(i) < 1e-9)
            && (next.noise / fit.noise - 1.0).abs() < 1e-9;
        let before = fit;
        fit = next;
        if settled {
            break;
        }
        // The sums have kinks in the footprint, between which a fit can oscillate.
        if round > ROUNDS / 4 {
            fit.means[FOOTPRINT] = (fit.means[FOOTPRINT] + before.means[FOOTPRINT]) / 2.0;
        }
    }
    let reach = reach(&left_out);
    calibration(&fit.means, &fit.covariance, fit.noise, reach, networks.len())
}

/// The prior, with the noise of the networks at that point.
fn start(networks: &[Example], prior: &Prior) -> Fit {
    let fit = Fit { means: prior.means, covariance: prior.covariance(), noise: 1.0 };
    let sizes: Vec<f64> = networks
        .iter()
        .map(|network| {
            let scaled = Scaled::of(network, prior.means[FOOTPRINT], prior);
            scaled.error(&fit).abs() / scaled.variance.sqrt()
        })
        .collect();
    Fit { noise: (MEDIAN_TO_SPREAD * stats::median(&sizes)).max(1.0), ..fit }
}

/// One iteration: the coefficients with the weights of the previous iteration, the noise with the new coefficients, and
/// the error of each network when it is left out.
fn step(networks: &[Example], fit: &Fit, prior: &Prior) -> (Fit, Vec<LeftOut>) {
    let at = fit.means[FOOTPRINT];
    let scaled: Vec<Scaled> =
        networks.iter().map(|network| Scaled::of(network, at, prior)).collect();
    let weights: Vec<f64> = scaled.iter().map(|one| one.weight(fit)).collect();
    let mut matrix = Matrix::from_diagonal(&prior.spread.map(|spread| spread.powi(-2)));
    let mut right = matrix * prior.means;
    for (one, weight) in scaled.iter().zip(&weights) {
        let precision = weight / (one.variance * fit.noise.powi(2));
        matrix += precision * one.x * one.x.transpose();
        right += precision * one.y * one.x;
    }
    let factor = matrix.cholesky().expect("a positive diagonal was added to a sum of squares");
    let mut next =
        Fit { means: factor.solve(&right), covariance: factor.inverse(), noise: fit.noise };
    let last = FOOTPRINTS[FOOTPRINTS.len() - 1];
    next.means[FOOTPRINT] = next.means[FOOTPRINT].clamp(0.0, last);
    let left_out: Vec<LeftOut> =
        scaled.iter().zip(&weights).map(|(one, &weight)| one.left_out(&next, weight)).collect();
    let square =
        |out: &LeftOut| (out.error.powi(2) / (out.noise + out.coefficients)).min(BOUND.powi(2));
    let squares = left_out.iter().map(square).sum::<f64>() * fit.noise.powi(2);
    let weight = BOUNDED_SQUARE * networks.len() as f64;
    next.noise = ((squares + ASSUMED_WEIGHT) / (weight + ASSUMED_WEIGHT)).sqrt();
    (next, left_out)
}

/// The half-width of an interval, in standard deviations of the noise.
fn reach(left_out: &[LeftOut]) -> f64 {
    if left_out.len() < CONFORMAL_FROM {
        return t(left_out.len());
    }
    let size = |out: &LeftOut| {
        let LeftOut { measured, error, noise, coefficients } = *out;
        // In logarithms, like the intervals.
        let predicted = (measured - error).max(measured * f64::EPSILON);
        let error = (measured / predicted).ln();
        let beyond = error.powi(2) - NORMAL_95.powi(2) * coefficients / predicted.powi(2);
        (beyond.max(0.0) / noise).sqrt() * predicted
    };
    let sizes: Vec<f64> = left_out.iter().map(size).collect();
    let rank = (0.95 * (sizes.len() + 1) as f64).ceil() as usize;
    stats::sorted(&sizes)[rank - 1]
}

/// The latency of a network, given its features at the footprint of the calibration. It is never less than 10% of the
/// sum of its ops, however unusual the networks of the fit were.
pub fn apply(calibration: &Calibration, features: &Features) -> Estimate {
    let Calibration { scale, unquiet, per_op_micros, per_merge_micros, noise, .. } = *calibration;
    let micros = scale * features.ops_micros
        + unquiet * features.unquiet_micros
        + per_op_micros * features.ops
        + per_merge_micros * features.merges;
    let micros = micros.max(features.ops_micros / 10.0);
    let x = coefficients_of(features);
    let mut spread = 0.0;
    for (i, row) in calibration.covariance.iter().enumerate() {
        for (j, value) in row.iter().enumerate() {
            spread += x[i] * value * x[j];
        }
    }
    let error = Uncertainty {
        rows: noise * features.rows_error,
        calibration: spread.max(0.0).sqrt() / micros,
        model: noise * MODEL_ERROR,
    };
    Estimate { micros, error }
}

#[cfg(test)]
mod tests;
