//! The reference ops of a box. They are measured in every run and compared with earlier runs. A machine that is slow as
//! a whole also slows down the reference ops. Statistics of a single run cannot show that.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use latlas_predict::stats;
use latlas_program::files::{Readers, write_whole};
use ops_catalog::{Catalog, OpKey};

use crate::engine::{Gauges, Job, Protocol};
use crate::worker::Work;

/// One compute-bound op and one memory-bound op.
const KEYS: [&str; 2] =
    ["Conv3x3:n1-h28-w28-i64-o64-s1", "DepthwiseConv3x3:n1-h112-w112-i32-o32-s1"];

/// An op on one number that computes nothing.
const SMALLEST: &str = "Identity:n1-h1-w1-i1-o1-s1";

/// Number of runs that are kept, for each run config.
const REMEMBERED: usize = 20;

/// Fewest earlier runs for a comparison.
const FEWEST_RUNS: usize = 3;

/// A run whose references are slower than usual by more than this factor is marked.
const MOST_SHIFT: f64 = 1.1;

/// Fewest changes of a reference between consecutive runs that determine the variation between runs.
const FEWEST_MOVES: usize = 10;

/// Quiet quantiles in microseconds, by op key.
pub type Values = BTreeMap<OpKey, f64>;

/// The keys of the reference ops.
pub fn keys() -> Vec<OpKey> {
    KEYS.iter().map(|key| key.parse().expect("they are op keys")).collect()
}

/// The reference ops and the smallest op as work, for a run whose rows are read at this reuse distance.
///
/// # Errors
/// When the catalog has no such op.
pub fn gauges(reuse_distance: u64) -> Result<Gauges> {
    let job = |work: Work| Job::new(work, Protocol::for_gauges(reuse_distance));
    Ok(Gauges {
        references: keys().iter().map(|key| builtin(key).map(job)).collect::<Result<_>>()?,
        smallest: Some(job(smallest()?)),
    })
}

/// The smallest op.
///
/// # Errors
/// When the catalog has no such op.
pub fn smallest() -> Result<Work> {
    builtin(&SMALLEST.parse().expect("it is an op key"))
}

/// A built-in op at a shape, as work.
///
/// # Errors
/// When the catalog has no such op.
pub fn builtin(key: &OpKey) -> Result<Work> {
    let def = Catalog::builtin().op(&key.op)?.def().clone();
    Ok(Work::Op { def, shape: key.shape })
}

/// The slowdown of the references against earlier runs: the median over the ops of the ratio to each op's own median.
/// None if there are too few runs.
pub fn shift(now: &Values, history: &[Values]) -> Option<f64> {
    let ratio = |(key, value): (&OpKey, &f64)| {
        let before: Vec<f64> = history.iter().filter_map(|run| run.get(key).copied()).collect();
        (before.len() >= FEWEST_RUNS).then(|| value / stats::median(&before))
    };
    let ratios: Vec<f64> = now.iter().filter_map(ratio).collect();
    (!ratios.is_empty()).then(|| stats::median(&ratios))
}

/// The relative change of a box between two runs in 95% of cases, from the changes of its references between
/// consecutive runs. None if there are too few changes. The value is clamped, because all twenty runs may have been
/// lucky, or another program may have run during one of them.
pub fn between_runs(history: &[Values]) -> Option<f64> {
    let moves: Vec<f64> = history
        .windows(2)
        .flat_map(|pair| {
            let other = &pair[1];
            pair[0].iter().filter_map(|(key, value)| Some((other.get(key)? / value).ln().abs()))
        })
        .collect();
    (moves.len() >= FEWEST_MOVES)
        .then(|| stats::quantile_of_sorted(&stats::sorted(&moves), 0.95).clamp(0.02, 0.1))
}

/// The reason why rows of such a run are not trusted, if there is one.
pub fn complaint(shift: Option<f64>) -> Option<String> {
    let shift = shift.filter(|&shift| shift > MOST_SHIFT)?;
    Some(format!(
        "the reference ops ran {:.0}% slower than in earlier runs on this box: it was slow as a whole",
        100.0 * (shift - 1.0)
    ))
}

/// The references of earlier runs under one run config, in a file.
#[derive(Debug, Clone)]
pub struct History {
    path: PathBuf,
    /// The runs, oldest first.
    pub runs: Vec<Values>,
}

impl History {
    /// The history in a state directory; empty if there is none.
    ///
    /// # Errors
    /// When the file exists and is not a history.
    pub fn open(state: &Path, hardware_id: &str, config: &str) -> Result<History> {
        let path = state.join("references").join(format!("{hardware_id}.{config}.json"));
        let runs = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| {
                format!("{} holds no reference values: remove it to begin anew", path.display())
            })?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => vec![],
            Err(e) => return Err(e).with_context(|| format!("reading {}", path.display())),
        };
        Ok(History { path, runs })
    }

    /// Adds a run, and drops the oldest run beyond the limit.
    ///
    /// # Errors
    /// When the file cannot be written; it then stays unchanged.
    pub fn add(&mut self, run: Values) -> Result<()> {
        self.runs.push(run);
        let surplus = self.runs.len().saturating_sub(REMEMBERED);
        self.runs.drain(..surplus);
        let write = || -> Result<()> {
            if let Some(dir) = self.path.parent() {
                fs::create_dir_all(dir)?;
            }
            Ok(write_whole(&self.path, &serde_json::to_vec(&self.runs)?, Readers::Umask)?)
        };
        write().with_context(|| format!("writing {}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn values(a: f64, b: f64) -> Values {
        keys().into_iter().zip([a, b]).collect()
    }

    #[test]
    fn the_catalog_has_them() {
        let gauges = gauges(8 << 20).unwrap();
        assert_eq!((gauges.references.len(), gauges.smallest.is_some()), (KEYS.len(), true));
    }

    #[test]
    fn a_slow_run_is_told_by_its_references() {
        let history = vec![values(100.0, 10.0); 3];
        assert_eq!(shift(&values(120.0, 12.0), &history[..2]), None);
        let slow = shift(&values(120.0, 12.0), &history);
        assert!((slow.unwrap() - 1.2).abs() < 1e-12);
        assert!(complaint(slow).unwrap().contains("20% slower"));
        assert_eq!(complaint(shift(&values(103.0, 10.2), &history)), None);
        assert_eq!(complaint(shift(&values(50.0, 5.0), &history)), None);
        assert_eq!(shift(&Values::new(), &history), None);
    }

    #[test]
    fn a_box_says_itself_how_much_it_moves() {
        let steady = vec![values(100.0, 10.0); 6];
        assert_eq!(between_runs(&steady[..5]), None);
        assert_eq!(between_runs(&steady), Some(0.02));
        let swinging: Vec<Values> = (0..8)
            .map(|run| if run % 2 == 0 { values(100.0, 10.0) } else { values(105.0, 10.5) })
            .collect();
        assert!((between_runs(&swinging).unwrap() - 1.05f64.ln()).abs() < 1e-12);
        let wild: Vec<Values> = (0..8).map(|run| values(2f64.powi(run), 1.0)).collect();
        assert_eq!(between_runs(&wild), Some(0.1));
    }

    #[test]
    fn history_is_kept_and_bounded() {
        let state = tempfile::tempdir().unwrap();
        for run in 0..REMEMBERED + 5 {
            let mut history = History::open(state.path(), "box.cpu", "f32-c1").unwrap();
            assert_eq!(history.runs.len(), run.min(REMEMBERED));
            history.add(values(run as f64, 1.0)).unwrap();
        }
        let history = History::open(state.path(), "box.cpu", "f32-c1").unwrap();
        assert_eq!(history.runs[0], values(5.0, 1.0));
        assert!(History::open(state.path(), "box.cpu", "f32-c2").unwrap().runs.is_empty());
        fs::write(&history.path, "{").unwrap();
        let error = History::open(state.path(), "box.cpu", "f32-c1").unwrap_err();
        assert!(format!("{error:#}").contains("remove it"));
    }

    proptest! {
        #[test]
        fn another_unit_gives_the_same_shift(
            runs in prop::collection::vec((1.0f64..1e3, 1.0f64..1e3), 3..10),
            now in (1.0f64..1e3, 1.0f64..1e3),
            unit in 1e-3f64..1e3,
        ) {
            let at = |unit: f64| {
                let history: Vec<Values> =
                    runs.iter().map(|&(a, b)| values(unit * a, unit * b)).collect();
                shift(&values(unit * now.0, unit * now.1), &history).unwrap()
            };
            prop_assert!((at(1.0) / at(unit) - 1.0).abs() < 1e-9);
        }
    }
}
