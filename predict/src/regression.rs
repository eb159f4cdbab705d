//! A function of several variables, learned from measured points, with an estimate of its error.
//!
//! It is a Gaussian process (Rasmussen and Williams, *Gaussian Processes for Machine Learning*, 2006) around a linear
//! trend. Its kernel is a product of exponentials, one per feature with its own length scale. Latency as a function of
//! a size has steps (tiles, vectors, another algorithm), so a rough kernel fits it better than a smooth one, and
//! uninformative features get large length scales. The intervals do not assume Gaussian errors: they are scaled by the
//! errors of left-out points.

use std::collections::{HashMap, HashSet};

use nalgebra::{Cholesky, DMatrix, DVector, Dyn};

use crate::stats;

mod evidence;
mod left_out;

use evidence::Hyper;
use left_out::Levels;

/// Share of new points that an interval contains.
pub const COVERAGE: f64 = 0.9;

/// Fewest points to learn from: with fewer, leaving each out does not support a statement about 90% of points.
pub const FEWEST_POINTS: usize = 9;

/// The most points that the function is fitted to. If there are more, a subset is used that is spread over all in the
/// order of their features. Their matrix takes memory quadratic in this number, and its inverse cubic time, whatever
/// the size of the table is. More points would add little compared with their cost; docs/predict-method.md has figures.
/// Fewer in the tests of this crate, which would spend most of their time here.
pub const MOST_POINTS: usize = if cfg!(test) { 300 } else { 1000 };

/// The most points for choosing the kernel. Each step of the choice has cubic cost in this number.
const MOST_FOR_KERNEL: usize = if cfg!(test) { 200 } else { 400 };

/// Steps of the search for a kernel, and of the search that starts from a nearby one.
const STEPS: usize = 60;
const STEPS_AGAIN: usize = 15;

/// A measured point.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// The coordinates, all finite. The noise may grow or shrink along the first feature.
    pub features: Vec<f64>,
    /// The measured values, finite: one or several quantities, the same number for each point.
    pub targets: Vec<f64>,
    /// Variance of the measured values around the true ones, as far as it is known.
    pub variance: f64,
}

/// An estimated quantity at a place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Guess {
    /// Its most likely value.
    pub value: f64,
    /// The value plus and minus this contains [`COVERAGE`] of new points.
    pub error: f64,
}

/// Why nothing was learned from points.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FitError {
    /// Too few points.
    #[error("that takes {FEWEST_POINTS} points, and there are {points}")]
    FewPoints {
        /// How many there are.
        points: usize,
    },
    /// Too few groups of points.
    #[error("that takes {FEWEST_POINTS} groups of points, and there are {groups}")]
    FewGroups {
        /// How many there are.
        groups: usize,
    },
    /// The points are too damaged for any function.
    #[error("no function goes through these points")]
    NoFunction,
}

/// A learned function.
#[derive(Debug, Clone)]
pub struct Regression {
    scale: Scale,
    process: Process,
    levels: Vec<Levels>,
    /// Per quantity, the [`COVERAGE`] quantile of the errors in units of the process's standard deviation.
    width: Vec<f64>,
    /// The same for places between levels.
    width_between: Vec<f64>,
}

/// A Gaussian process fitted to points, in units of [`Scale`].
#[derive(Debug, Clone)]
struct Process {
    hyper: Hyper,
    places: Vec<Vec<f64>>,
    /// Inverse of the points' covariance matrix.
    inverse: DMatrix<f64>,
    /// The inverse times the targets, one column per quantity.
    weights: DMatrix<f64>,
    /// Measurement variance of a typical point.
    measured_variance: f64,
}

/// Points in units of [`Scale`].
#[derive(Debug, Clone)]
struct Seen {
    places: Vec<Vec<f64>>,
    /// One row per point, one column per quantity.
    targets: DMatrix<f64>,
    variances: Vec<f64>,
}

/// Units in which features and targets have mean 0 and variance 1.
#[derive(Debug, Clone)]
struct Scale {
    /// The features that differ between points.
    used: Vec<usize>,
    centre: Vec<f64>,
    spread: Vec<f64>,
    target_centre: Vec<f64>,
    /// One value for all quantities, since they share a kernel.
    target_spread: f64,
}

impl Regression {
    /// Learns from points in any order.
    ///
    /// # Errors
    /// When there are fewer than [`FEWEST_POINTS`], or they are so damaged that no function fits them.
    pub fn fit(points: &[Point]) -> Result<Regression, FitError> {
        Regression::learn(points, None, MOST_POINTS)
    }

    /// Learns from points of several groups. The errors are those of points whose whole group is left out: they are
    /// valid for a group of which nothing is known.
    ///
    /// # Errors
    /// As [`Regression::fit`], and when there are fewer than [`FEWEST_POINTS`] groups.
    ///
    /// # Panics
    /// When the number of group numbers differs from the number of points.
    pub fn fit_in_groups(points: &[Point], groups: &[usize]) -> Result<Regression, FitError> {
        assert_eq!(points.len(), groups.len(), "each point has a group");
        Regression::learn(points, Some(groups), MOST_POINTS)
    }

    /// Fits at most `most` points.
    fn learn(
        points: &[Point],
        groups: Option<&[usize]>,
        most: usize,
    ) -> Result<Regression, FitError> {
        let distinct = |groups: &[usize]| groups.iter().collect::<HashSet<_>>().len();
        match groups.map(distinct) {
            Some(groups) if groups < FEWEST_POINTS => return Err(FitError::FewGroups { groups }),
            None if points.len() < FEWEST_POINTS => {
                return Err(FitError::FewPoints { points: points.len() });
            }
            _ => {}
        }
        // Sums of floats depend on their order, but the result must not depend on the caller's order.
        let mut order: Vec<usize> = (0..points.len()).collect();
        order.sort_by(|&a, &b| total_order(&points[a], &points[b]));
        if order.len() > most {
            let mut taken = spread(order.len());
            taken.truncate(most);
            taken.sort_unstable();
            order = taken.into_iter().map(|i| order[i]).collect();
        }
        let points: Vec<&Point> = order.iter().map(|&i| &points[i]).collect();
        let groups: Option<Vec<usize>> =
            groups.map(|groups| order.iter().map(|&i| groups[i]).collect());
        let scale = Scale::new(&points);
        let seen = scale.seen(&points);
        let learned = || {
            let process = Process::learn(&seen)?;
            let width_of = |scores: DMatrix<f64>| widths(vec![scores]);
            if let Some(groups) = groups {
                let (scores, groups) = left_out::groups(&seen, &process, &groups)?;
                let width = widths_of_groups(&scores, &groups);
                let width_between = width.clone();
                return Some(Regression { scale, process, levels: vec![], width, width_between });
            }
            let levels = Levels::all(&seen.places);
            let width = width_of(left_out::points(&seen, &process)?);
            let between = left_out::levels(&seen, &process, &levels)?;
            let width_between = if between.is_empty() { width.clone() } else { widths(between) };
            Some(Regression { scale, process, levels, width, width_between })
        };
        learned().ok_or(FitError::NoFunction)
    }

    /// The number of points that it is fitted to.
    pub fn points(&self) -> usize {
        self.process.places.len()
    }

    /// Every quantity at a place.
    pub fn at(&self, features: &[f64]) -> Vec<Guess> {
        let place = self.scale.place(features);
        let (values, deviation) = self.process.at(&place);
        let between = self.levels.iter().any(|levels| levels.are_around(&place));
        let width = if between { &self.width_between } else { &self.width };
        let unit = self.scale.target_spread;
        let guess = |(quantity, value): (usize, &f64)| Guess {
            value: self.scale.target_centre[quantity] + unit * value,
            error: unit * deviation * width[quantity],
        };
        values.iter().enumerate().map(guess).collect()
    }
}

impl Process {
    fn learn(seen: &Seen) -> Option<Process> {
        let start = Hyper::start(seen.places.first().map_or(0, Vec::len));
        Process::with(seen, seen.some(MOST_FOR_KERNEL).most_likely(start, STEPS))
    }

    /// Learns again from a part of the points, starting from this process's kernel.
    fn learn_again(&self, seen: &Seen) -> Option<Process> {
        Process::with(seen, seen.most_likely(self.hyper.clone(), STEPS_AGAIN))
    }

    fn with(seen: &Seen, hyper: Hyper) -> Option<Process> {
        let inverse = factorize(&hyper, seen)?.inverse();
        let weights = &inverse * &seen.targets;
        let measured_variance = stats::median(&seen.variances);
        Some(Process { hyper, places: seen.places.clone(), inverse, weights, measured_variance })
    }

    /// Every quantity at a place, and the standard deviation of a new measurement there.
    fn at(&self, place: &[f64]) -> (DVector<f64>, f64) {
        let covariance = |other: &Vec<f64>| self.hyper.covariance(place, other);
        let towards = DVector::from_iterator(self.places.len(), self.places.iter().map(covariance));
        let known = towards.dot(&(&self.inverse * &towards));
        let left = (self.hyper.covariance(place, place) - known).max(0.0);
        let variance = left + self.hyper.noise(place) + self.measured_variance;
        (self.weights.tr_mul(&towards), variance.sqrt())
    }
}

impl Seen {
    /// The points with these indices.
    fn these(&self, which: &[usize]) -> Seen {
        Seen {
            places: which.iter().map(|&i| self.places[i].clone()).collect(),
            targets: self.targets.select_rows(which),
            variances: which.iter().map(|&i| self.variances[i]).collect(),
        }
    }

    /// The indices of the points in an order that is [`spread`] over them.
    fn spread(&self) -> Vec<usize> {
        spread(self.places.len())
    }

    fn some(&self, most: usize) -> Seen {
        let mut order = self.spread();
        order.truncate(most);
        self.these(&order)
    }
}

/// Numbers below `count` in an order whose every prefix is spread evenly: that of multiples of the golden ratio. It
/// does not align with a grid, as every tenth number would.
fn spread(count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by_key(|&i| (i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    order
}

fn total_order(a: &Point, b: &Point) -> std::cmp::Ordering {
    let pairs = a.features.iter().zip(&b.features).chain(a.targets.iter().zip(&b.targets));
    pairs
        .map(|(a, b)| a.total_cmp(b))
        .find(|order| order.is_ne())
        .unwrap_or(std::cmp::Ordering::Equal)
}

fn factorize(hyper: &Hyper, seen: &Seen) -> Option<Cholesky<f64, Dyn>> {
    let n = seen.places.len();
    let mut matrix = DMatrix::zeros(n, n);
    for (i, place) in seen.places.iter().enumerate() {
        for (j, other) in seen.places[..i].iter().enumerate() {
            let covariance = hyper.covariance(place, other);
            matrix[(i, j)] = covariance;
            matrix[(j, i)] = covariance;
        }
        matrix[(i, i)] = hyper.covariance(place, place) + hyper.noise(place) + seen.variances[i];
    }
    Cholesky::new(matrix)
}

/// Per quantity, the number of standard deviations that contains [`COVERAGE`] of the scores.
///
/// As in conformal prediction the rank is `ceil(COVERAGE (n + 1))`, one above the plain quantile's, since the next
/// point counts as one more.
fn widths(scores: Vec<DMatrix<f64>>) -> Vec<f64> {
    let width = |quantity: usize| {
        let of =
            |scores: &DMatrix<f64>| scores.column(quantity).iter().copied().collect::<Vec<_>>();
        let sorted = stats::sorted(&scores.iter().flat_map(of).collect::<Vec<f64>>());
        let rank = (COVERAGE * (sorted.len() + 1) as f64).ceil() as usize;
        sorted[rank.min(sorted.len()) - 1]
    };
    (0..scores[0].ncols()).map(width).collect()
}

/// The same if each score belongs to a group, and a point of a new group is estimated. Then groups are exchangeable, so
/// each has the same weight, however many points it has (Dunn, Wasserman and Ramdas 2022, arXiv 1809.07441, section 3).
fn widths_of_groups(scores: &DMatrix<f64>, groups: &[usize]) -> Vec<f64> {
    let mut sizes: HashMap<usize, f64> = HashMap::new();
    groups.iter().for_each(|&group| *sizes.entry(group).or_default() += 1.0);
    let needed = COVERAGE * (sizes.len() + 1) as f64;
    let width = |quantity: usize| {
        let weight = |&group: &usize| 1.0 / sizes[&group];
        let mut all: Vec<(f64, f64)> =
            scores.column(quantity).iter().copied().zip(groups.iter().map(weight)).collect();
        all.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut reached = 0.0;
        let enough = all.iter().find(|(_, weight)| {
            reached += weight;
            // Sums of thirds may miss a whole number because of rounding.
            reached >= needed - 1e-9
        });
        enough.or(all.last()).expect("there is a score").0
    };
    (0..scores.ncols()).map(width).collect()
}

impl Scale {
    fn new(points: &[&Point]) -> Scale {
        let column =
            |of: &dyn Fn(&Point) -> f64| points.iter().map(|p| of(p)).collect::<Vec<f64>>();
        let mut used: Vec<usize> = Vec::new();
        let (mut centre, mut spread) = (Vec::new(), Vec::new());
        let mut columns: Vec<Vec<f64>> = Vec::new();
        for feature in 0..points[0].features.len() {
            let values = column(&|p| p.features[feature]);
            let (mean, deviation) = mean_and_deviation(&values);
            if deviation <= 1e-9 * (1.0 + mean.abs()) || columns.contains(&values) {
                continue;
            }
            used.push(feature);
            centre.push(mean);
            spread.push(deviation);
            columns.push(values);
        }
        let quantities: Vec<(f64, f64)> = (0..points[0].targets.len())
            .map(|quantity| mean_and_deviation(&column(&|p| p.targets[quantity])))
            .collect();
        let square = quantities.iter().map(|(_, d)| d * d).sum::<f64>() / quantities.len() as f64;
        Scale {
            used,
            centre,
            spread,
            target_centre: quantities.iter().map(|(mean, _)| *mean).collect(),
            target_spread: square.sqrt().max(1e-6),
        }
    }

    fn seen(&self, points: &[&Point]) -> Seen {
        Seen {
            places: points.iter().map(|p| self.place(&p.features)).collect(),
            targets: DMatrix::from_fn(points.len(), self.target_centre.len(), |i, q| {
                (points[i].targets[q] - self.target_centre[q]) / self.target_spread
            }),
            variances: points.iter().map(|p| p.variance / self.target_spread.powi(2)).collect(),
        }
    }

    fn place(&self, features: &[f64]) -> Vec<f64> {
        let units = self.centre.iter().zip(&self.spread);
        self.used.iter().zip(units).map(|(&f, (c, s))| (features[f] - c) / s).collect()
    }
}

fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let square = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
    (mean, square.sqrt())
}

#[cfg(test)]
mod tests;
