//! The errors of estimates, in standard deviations of the process: each point is estimated from others.

use nalgebra::DMatrix;

use super::{Process, Seen};

/// Number of folds.
const FOLDS: usize = 5;

/// With more points than this, a single one hardly influences the choice of the kernel.
const MANY_POINTS: usize = 200;

/// A feature has levels if it has at least this many points per value, on average.
const POINTS_PER_LEVEL: usize = 3;

/// The values of a feature with few distinct values, as on a grid.
///
/// Points on a grid support one another: if one is left out, all others of its row and column remain, so its error says
/// nothing about a place between the levels. For such places, whole levels are left out.
#[derive(Debug, Clone)]
pub(super) struct Levels {
    feature: usize,
    /// At least three, ascending.
    values: Vec<f64>,
}

impl Levels {
    pub(super) fn all(places: &[Vec<f64>]) -> Vec<Levels> {
        let features = 0..places.first().map_or(0, Vec::len);
        let of = |feature: usize| {
            let mut values: Vec<f64> = places.iter().map(|place| place[feature]).collect();
            values.sort_by(f64::total_cmp);
            values.dedup();
            let few = values.len() >= 3 && values.len() * POINTS_PER_LEVEL <= places.len();
            few.then_some(Levels { feature, values })
        };
        features.filter_map(of).collect()
    }

    /// Whether a place is off the levels. Equal sizes give equal floats.
    pub(super) fn are_around(&self, place: &[f64]) -> bool {
        self.level(place).is_none()
    }

    fn level(&self, place: &[f64]) -> Option<usize> {
        self.values.iter().position(|value| *value == place[self.feature])
    }

    /// Whether a place is on a level of this parity that has levels on both sides.
    fn is_inner(&self, place: &[f64], parity: usize) -> bool {
        let inner = |&level: &usize| level > 0 && level + 1 < self.values.len();
        self.level(place).filter(inner).is_some_and(|level| level % 2 == parity)
    }
}

/// Scores of points that are left out individually, one row per point.
///
/// Few points are left out in folds, and everything, including the kernel, is learned from the other folds: a kernel
/// that was chosen with a point depends on that point. If there are many points, each is left out alone and the kernel
/// stays. The errors then follow without learning again (Rasmussen and Williams, equations 5.10 to 5.12): point `i` is
/// off by `weights[i] / inverse[i, i]`, with variance `1 / inverse[i, i]`.
pub(super) fn points(seen: &Seen, process: &Process) -> Option<DMatrix<f64>> {
    let Process { inverse, weights, .. } = process;
    if seen.places.len() > MANY_POINTS {
        let score = |i: usize, q: usize| weights[(i, q)].abs() / inverse[(i, i)].sqrt();
        return Some(DMatrix::from_fn(weights.nrows(), weights.ncols(), score));
    }
    let order = seen.spread();
    let mut scores = Vec::new();
    for fold in 0..FOLDS {
        let (mut out, mut rest) = (Vec::new(), Vec::new());
        for (rank, &i) in order.iter().enumerate() {
            if rank % FOLDS == fold { out.push(i) } else { rest.push(i) }
        }
        scores.extend(scores_of(seen, process, &out, &rest)?);
    }
    Some(by_rows(&scores))
}

/// Scores of points whose group is left out, one row per point, and the group of each. The groups are left out in
/// folds.
pub(super) fn groups(
    seen: &Seen,
    process: &Process,
    groups: &[usize],
) -> Option<(DMatrix<f64>, Vec<usize>)> {
    let (mut scores, mut of) = (Vec::new(), Vec::new());
    for fold in 0..FOLDS {
        let is_out = |i: &usize| groups[*i] % FOLDS == fold;
        let (out, rest): (Vec<usize>, Vec<usize>) = (0..seen.places.len()).partition(is_out);
        if !out.is_empty() {
            scores.extend(scores_of(seen, process, &out, &rest)?);
            of.extend(out.iter().map(|&point| groups[point]));
        }
    }
    Some((by_rows(&scores), of))
}

/// Scores of points whose level is left out, every other inner level of a feature at a time. Empty if there are no
/// levels.
pub(super) fn levels(
    seen: &Seen,
    process: &Process,
    levels: &[Levels],
) -> Option<Vec<DMatrix<f64>>> {
    let seen = seen.some(MANY_POINTS);
    let mut all = Vec::new();
    for levels in levels {
        for parity in 0..2 {
            let is_out = |i: &usize| levels.is_inner(&seen.places[*i], parity);
            let (out, rest): (Vec<usize>, Vec<usize>) = (0..seen.places.len()).partition(is_out);
            if !out.is_empty() {
                all.push(by_rows(&scores_of(&seen, process, &out, &rest)?));
            }
        }
    }
    Some(all)
}

/// Errors of some points, in standard deviations, when they are estimated from the rest.
fn scores_of(
    seen: &Seen,
    process: &Process,
    out: &[usize],
    rest: &[usize],
) -> Option<Vec<Vec<f64>>> {
    let process = process.learn_again(&seen.these(rest))?;
    let scores = |&i: &usize| {
        let (values, deviation) = process.at(&seen.places[i]);
        let off = |(value, truth): (&f64, &f64)| (truth - value).abs() / deviation;
        values.iter().zip(seen.targets.row(i).iter()).map(off).collect()
    };
    Some(out.iter().map(scores).collect())
}

fn by_rows(scores: &[Vec<f64>]) -> DMatrix<f64> {
    DMatrix::from_fn(scores.len(), scores[0].len(), |i, q| scores[i][q])
}
