//! The choice of the kernel's parameters: those under which the points are most likely.

use nalgebra::DMatrix;

use super::{Seen, factorize};

/// Prior variance of the trend's level and slopes, in units of the targets' variance. It is wide, so the points decide.
const TREND_VARIANCE: f64 = 4.0;

/// Parameters of the covariance, all in logarithms except the slope, for features and targets of
/// variance 1.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Hyper {
    /// Amplitude, noise, slope of the noise, then a length scale per feature.
    values: Vec<f64>,
}

const AMPLITUDE: usize = 0;
const NOISE: usize = 1;
const SLOPE: usize = 2;
const LENGTHS: usize = 3;

/// For each parameter: the start of the search, mean and deviation of the prior, and the bounds. The priors are wide
/// and matter only for few points. Then they assume length scales of about the measured range, and noise that is small
/// compared with the effect of the shape.
struct Belief {
    start: f64,
    mean: f64,
    deviation: f64,
    bounds: (f64, f64),
}

fn belief(parameter: usize) -> Belief {
    match parameter {
        AMPLITUDE => Belief { start: -0.7, mean: -0.7, deviation: 1.5, bounds: (-8.0, 4.0) },
        NOISE => Belief { start: -3.0, mean: -4.0, deviation: 3.0, bounds: (-12.0, 1.0) },
        SLOPE => Belief { start: 0.0, mean: 0.0, deviation: 0.5, bounds: (-1.5, 1.5) },
        _ => Belief { start: 1.1, mean: 0.7, deviation: 1.5, bounds: (-3.0, 6.0) },
    }
}

impl Hyper {
    pub(super) fn start(features: usize) -> Hyper {
        Hyper { values: (0..LENGTHS + features).map(|p| belief(p).start).collect() }
    }

    /// Covariance of the quantities at two places.
    pub(super) fn covariance(&self, a: &[f64], b: &[f64]) -> f64 {
        let mut apart = 0.0;
        let mut product = 0.0;
        for ((a, b), length) in a.iter().zip(b).zip(&self.values[LENGTHS..]) {
            apart += (a - b).abs() * (-length).exp();
            product += a * b;
        }
        (self.values[AMPLITUDE] - apart).exp() + TREND_VARIANCE * (1.0 + product)
    }

    /// The noise variance at a place, which the function does not explain.
    pub(super) fn noise(&self, place: &[f64]) -> f64 {
        let along = place.first().copied().unwrap_or_default();
        (self.values[NOISE] + self.values[SLOPE] * along).exp()
    }
}

impl Seen {
    /// The most likely parameters, found by a search that uses only the sign of the gradient: iRprop- (Igel and Hüsken
    /// 2000). Blum and Riedmiller (2013) found that it works as well for Gaussian processes as conjugate gradients.
    pub(super) fn most_likely(&self, start: Hyper, most_steps: usize) -> Hyper {
        let mut hyper = start;
        let mut steps = vec![0.3; hyper.values.len()];
        let mut before = vec![0.0; hyper.values.len()];
        let mut best = (f64::NEG_INFINITY, hyper.clone());
        for _ in 0..most_steps {
            let Some((likelihood, mut gradient)) = self.likelihood(&hyper) else { break };
            if likelihood > best.0 {
                best = (likelihood, hyper.clone());
            }
            for (p, slope) in gradient.iter_mut().enumerate() {
                let turned = *slope * before[p];
                if turned > 0.0 {
                    steps[p] = f64::min(1.2 * steps[p], 1.0);
                } else if turned < 0.0 {
                    steps[p] *= 0.5;
                    *slope = 0.0;
                }
                let (low, high) = belief(p).bounds;
                if *slope != 0.0 {
                    let moved = hyper.values[p] + steps[p] * slope.signum();
                    hyper.values[p] = moved.clamp(low, high);
                }
            }
            before = gradient;
            if steps.iter().all(|&step| step < 1e-3) {
                break;
            }
        }
        best.1
    }

    /// Logarithm of the likelihood of the targets times the prior, up to a constant, and its gradient. It uses the mean
    /// over the quantities, not the sum: the points of one curve are not seven independent observations.
    fn likelihood(&self, hyper: &Hyper) -> Option<(f64, Vec<f64>)> {
        let factor = factorize(hyper, self)?;
        let quantities = self.targets.ncols() as f64;
        let inverse = factor.inverse();
        let weights = &inverse * &self.targets;
        let fit = self.targets.dot(&weights) / quantities;
        let log_determinant: f64 = factor.l_dirty().diagonal().iter().map(|d| d.ln()).sum();
        // The derivative with respect to a parameter is half the sum of this times the derivatives of the covariances.
        let pull = &weights * weights.transpose() / quantities - inverse;
        let mut gradient = self.gradient(hyper, &pull);
        let mut likelihood = -0.5 * fit - log_determinant;
        for (p, value) in hyper.values.iter().enumerate() {
            let Belief { mean, deviation, .. } = belief(p);
            likelihood -= 0.5 * ((value - mean) / deviation).powi(2);
            gradient[p] -= (value - mean) / deviation.powi(2);
        }
        likelihood.is_finite().then_some((likelihood, gradient))
    }

    fn gradient(&self, hyper: &Hyper, pull: &DMatrix<f64>) -> Vec<f64> {
        let mut gradient = vec![0.0; hyper.values.len()];
        let lengths: Vec<f64> = hyper.values[LENGTHS..].iter().map(|l| (-l).exp()).collect();
        let mut apart = vec![0.0; lengths.len()];
        for (i, place) in self.places.iter().enumerate() {
            for (j, other) in self.places[..i].iter().enumerate() {
                for (f, length) in lengths.iter().enumerate() {
                    apart[f] = (place[f] - other[f]).abs() * length;
                }
                // A factor of two for the two triangles, and one half for the derivative.
                let kernel = (hyper.values[AMPLITUDE] - apart.iter().sum::<f64>()).exp();
                let share = pull[(i, j)] * kernel;
                gradient[AMPLITUDE] += share;
                for (f, apart) in apart.iter().enumerate() {
                    gradient[LENGTHS + f] += share * apart;
                }
            }
            let own = 0.5 * pull[(i, i)];
            let noise = hyper.noise(place);
            gradient[AMPLITUDE] += own * hyper.values[AMPLITUDE].exp();
            gradient[NOISE] += own * noise;
            gradient[SLOPE] += own * noise * place.first().copied().unwrap_or_default();
        }
        gradient
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The gradient agrees with finite differences of the likelihood.
    #[test]
    fn the_gradient_is_the_likelihoods() {
        let places: Vec<Vec<f64>> = (0..12)
            .map(|i| vec![f64::from(i) / 6.0 - 1.0, f64::from(i * i % 7) / 3.0 - 1.0])
            .collect();
        let targets = DMatrix::from_fn(12, 2, |i, q| places[i][q].sin() + 0.1 * places[i][1 - q]);
        let evidence = Seen { places, targets, variances: vec![1e-3; 12] };
        let hyper = Hyper { values: vec![-0.2, -2.5, 0.3, 0.8, 0.1] };
        let (_, gradient) = evidence.likelihood(&hyper).unwrap();
        for (p, expected) in gradient.iter().enumerate() {
            let at = |by: f64| {
                let mut moved = hyper.clone();
                moved.values[p] += by;
                evidence.likelihood(&moved).unwrap().0
            };
            let slope = (at(1e-5) - at(-1e-5)) / 2e-5;
            assert!((slope - expected).abs() < 1e-5, "{p}: {slope} {expected}");
        }
    }
}
