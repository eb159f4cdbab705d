//! Statistics of samples. All functions are pure and take samples in any order.

/// The quiet quantile: on a shared machine the 10th percentile is the cost of the op without disturbance, and unlike
/// the minimum it has a confidence interval.
pub const QUIET: f64 = 0.10;

/// The `q`-quantile by linear interpolation between order statistics (type 7 of Hyndman and Fan, the
/// default of numpy and R).
///
/// `sorted` is ascending and not empty; `q` is in 0..=1.
pub fn quantile_of_sorted(sorted: &[f64], q: f64) -> f64 {
    let position = q * (sorted.len() - 1) as f64;
    let below = position.floor() as usize;
    let above = position.ceil() as usize;
    sorted[below] + (sorted[above] - sorted[below]) * (position - below as f64)
}

/// Ascending copy of the samples.
pub fn sorted(samples: &[f64]) -> Vec<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// The median; `samples` is not empty.
pub fn median(samples: &[f64]) -> f64 {
    quantile_of_sorted(&sorted(samples), 0.5)
}

pub use latlas_shared::samples::Visit;

/// A 95% confidence interval of the `q`-quantile of samples that come in visits, without assuming
/// any distribution: Woodruff's method (1952, JASA 47:635) with the variance between visits.
///
/// The share of samples below the quantile is estimated per visit. Its variance between visits gives the variance of
/// the pooled share. Student's t with one degree of freedom less than the number of visits sets the width. The order
/// statistics at the lower and upper share are the interval. The binomial variance is a lower bound, so that visits
/// that agree by chance do not narrow the interval. The upper share is Wilson's (1927, JASA 22:209), since the
/// symmetric one is too short for a low quantile of few independent visits. If the lower share would be below zero, the
/// end is mirrored.
///
/// `q` is at most one half. Needs at least two visits with samples; returns `None` otherwise.
pub fn quantile_interval(visits: &[Visit], q: f64) -> Option<(f64, f64)> {
    interval(visits, q, 1.0)
}

/// The interval that contains 95% of repetitions of the same measurement: an independent repetition has its own error,
/// so the standard error is larger by the square root of two. Rows publish this interval, since readers compare a row
/// with another table.
///
/// `None` as for [`quantile_interval`].
pub fn repetition_interval(visits: &[Visit], q: f64) -> Option<(f64, f64)> {
    interval(visits, q, std::f64::consts::SQRT_2)
}

fn interval(visits: &[Visit], q: f64, factor: f64) -> Option<(f64, f64)> {
    let visits: Vec<&Visit> = visits.iter().filter(|visit| !visit.is_empty()).collect();
    if visits.len() < 2 {
        return None;
    }
    let pooled = sorted(&visits.iter().flat_map(|v| v.iter().copied()).collect::<Vec<f64>>());
    let total = pooled.len() as f64;
    let value = quantile_of_sorted(&pooled, q);
    let below = |samples: &[f64]| samples.iter().filter(|&&s| s <= value).count() as f64;
    let share = below(&pooled) / total;
    let count = visits.len() as f64;
    let between: f64 = visits
        .iter()
        .map(|visit| ((below(visit) - share * visit.len() as f64) / total).powi(2))
        .sum::<f64>()
        * count
        / (count - 1.0);
    let variance = factor * factor * between.max(q * (1.0 - q) / total);
    let t = student_t_975(visits.len() as f64 - 1.0);
    // The number of independent samples with this variance.
    let independent = q * (1.0 - q) / variance;
    let (_, upper) = wilson(q, independent, t);
    let lower = q - t * variance.sqrt();
    let at = |share: f64| quantile_of_sorted(&pooled, share.clamp(0.0, 1.0));
    let high = at(upper);
    // If the lower share is below zero, there is no such order statistic, and the true value may be below every sample.
    // The factor of the upper end is then used.
    let low = if lower < 0.0 { at(0.0).min(value * value / high) } else { at(lower) };
    Some((low, high))
}

/// Wilson's interval for a share: unlike the symmetric one it is correct for small shares of few samples.
fn wilson(share: f64, samples: f64, z: f64) -> (f64, f64) {
    let shrink = 1.0 + z * z / samples;
    let centre = (share + z * z / (2.0 * samples)) / shrink;
    let spread =
        z / shrink * (share * (1.0 - share) / samples + (z / (2.0 * samples)).powi(2)).sqrt();
    (centre - spread, centre + spread)
}

/// The 97.5th percentile of Student's t: half the width of a 95% interval in standard errors. `degrees_of_freedom`
/// is above 0.
pub fn student_t_975(degrees_of_freedom: f64) -> f64 {
    use statrs::distribution::{ContinuousCDF, StudentsT};
    StudentsT::new(0.0, 1.0, degrees_of_freedom)
        .map(|t| t.inverse_cdf(0.975))
        .expect("there is at least one degree of freedom")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Chance, MACHINES, Machine};
    use proptest::prelude::*;

    #[test]
    fn quantiles_of_known_samples() {
        let samples = sorted(&[4.0, 1.0, 3.0, 2.0, 5.0]);
        for (q, expected) in [(0.0, 1.0), (0.1, 1.4), (0.5, 3.0), (1.0, 5.0)] {
            assert!((quantile_of_sorted(&samples, q) - expected).abs() < 1e-12);
        }
    }

    fn pooled(visits: &[Visit]) -> Vec<f64> {
        sorted(&visits.concat())
    }

    proptest! {
        #[test]
        fn a_quantile_lies_inside_its_interval(
            visits in prop::collection::vec(prop::collection::vec(0.1f64..1e6, 1..20), 2..20),
            q in 0.05f64..0.5,
        ) {
            let (low, high) = quantile_interval(&visits, q).unwrap();
            let value = quantile_of_sorted(&pooled(&visits), q);
            prop_assert!(low <= value && value <= high, "{low} {value} {high}");
        }

        #[test]
        fn the_order_of_samples_does_not_matter(
            mut visits in prop::collection::vec(prop::collection::vec(0.1f64..1e6, 1..20), 2..20),
        ) {
            let before = quantile_interval(&visits, QUIET);
            visits.reverse();
            visits.iter_mut().for_each(|visit| visit.reverse());
            let after = quantile_interval(&visits, QUIET);
            let (before, after) = (before.unwrap(), after.unwrap());
            prop_assert!((before.0 / after.0 - 1.0).abs() < 1e-9);
            prop_assert!((before.1 / after.1 - 1.0).abs() < 1e-9);
        }

        #[test]
        fn quantiles_scale_with_their_samples(
            samples in prop::collection::vec(0.1f64..1e6, 1..50),
            factor in 0.1f64..10.0,
        ) {
            let scaled: Vec<f64> = samples.iter().map(|s| s * factor).collect();
            prop_assert!((median(&scaled) / median(&samples) / factor - 1.0).abs() < 1e-9);
        }
    }

    #[test]
    fn one_visit_has_no_interval() {
        assert_eq!(quantile_interval(&[vec![1.0, 2.0, 3.0]], QUIET), None);
        assert_eq!(quantile_interval(&[vec![1.0], vec![]], QUIET), None);
    }

    const RUN: usize = 15;

    fn run(machine: Machine, chance: &mut Chance) -> Vec<Visit> {
        (0..RUN).map(|index| machine(chance, index as f64 / RUN as f64)).collect()
    }

    #[test]
    fn the_interval_covers_the_truth_on_every_kind_of_machine() {
        for (name, machine) in MACHINES {
            let mut chance = Chance::new(1);
            let long: Vec<Visit> = (0..3000).flat_map(|_| run(machine, &mut chance)).collect();
            let truth = quantile_of_sorted(&pooled(&long), QUIET);
            let trials = 600;
            let covered = (0..trials)
                .filter(|_| {
                    let visits = run(machine, &mut chance);
                    let (low, high) = quantile_interval(&visits, QUIET).unwrap();
                    low <= truth && truth <= high
                })
                .count();
            let share = covered as f64 / f64::from(trials);
            assert!(share >= 0.92, "{name}: {share}");
        }
    }

    #[test]
    fn a_repetition_falls_into_its_interval() {
        for (name, machine) in MACHINES {
            let mut chance = Chance::new(2);
            let trials = 600;
            let covered = (0..trials)
                .filter(|_| {
                    let (low, high) =
                        repetition_interval(&run(machine, &mut chance), QUIET).unwrap();
                    let again = pooled(&run(machine, &mut chance));
                    let again = quantile_of_sorted(&again, QUIET);
                    low <= again && again <= high
                })
                .count();
            let share = covered as f64 / f64::from(trials);
            assert!(share >= 0.92, "{name}: {share}");
        }
    }
}
