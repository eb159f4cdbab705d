//! Rows that contradict their neighbours: an op that is smaller in every size should not take a multiple of the time.

use std::collections::BTreeMap;

use ops_catalog::{Catalog, OpDigest};

use crate::interpolate::hull::Sizes;
use latlas_shared::Row;
use latlas_shared::RowStatus;

/// Two rows contradict each other if the smaller op takes more than this factor longer than the larger one, even with
/// both intervals considered. A worse algorithm sometimes costs that much.
const CONTRADICTION: f64 = 2.0;

/// Channels that vector and matrix units process at once. 65 channels can take several times as long as 72.
const VECTOR: u32 = 8;

/// A row with the values for its comparison.
struct Compared {
    row: usize,
    sizes: Sizes,
    /// The power of two that divides channels in and out, at most [`VECTOR`].
    fill: [u32; 2],
    low: f64,
    high: f64,
}

/// Marks the rows that contradict others of their op as suspect, with the reason. Of two contradicting rows, the one
/// that contradicts more rows is marked; with equal counts, both.
pub(super) fn mark_suspects(rows: &mut [Row], catalog: &Catalog) {
    let mut by_op: BTreeMap<OpDigest, Vec<Compared>> = BTreeMap::new();
    for (index, row) in rows.iter().enumerate() {
        if let Some(compared) = compared(index, row, catalog) {
            by_op.entry(row.op_digest.clone()).or_default().push(compared);
        }
    }
    for of_op in by_op.values_mut() {
        let pairs = contradictions(of_op);
        let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
        for row in pairs.iter().flat_map(|&(small, large)| [small, large]) {
            *counts.entry(row).or_default() += 1;
        }
        for (small, large) in pairs {
            let factor = rows[small].latency_micros.unwrap_or(0.0)
                / rows[large].latency_micros.unwrap_or(f64::INFINITY);
            if counts[&small] >= counts[&large] {
                let than = rows[large].key();
                mark(&mut rows[small], format!("takes {factor:.1} times as long as {than}"));
            }
            if counts[&large] >= counts[&small] {
                let than = rows[small].key();
                mark(&mut rows[large], format!("takes 1/{factor:.1} of the time of {than}"));
            }
        }
    }
}

/// The first contradiction is reported; a row may have many.
fn mark(row: &mut Row, what: String) {
    if row.status != RowStatus::Suspect {
        row.status = RowStatus::Suspect;
        row.reason = Some(format!("it {what}: measure both again"));
    }
}

fn compared(index: usize, row: &Row, catalog: &Catalog) -> Option<Compared> {
    let op = catalog.op(&row.op_type).ok().filter(|op| *op.digest() == row.op_digest)?;
    let (micros, width) = (row.latency_micros?, row.ci95_rel.unwrap_or(0.0));
    let shape = row.shape();
    Some(Compared {
        row: index,
        sizes: Sizes::new(op, &shape)?,
        fill: [shape.channels_in, shape.channels_out].map(fill),
        low: micros * (1.0 - width).max(0.0),
        high: micros * (1.0 + width),
    })
}

fn fill(channels: u32) -> u32 {
    1 << channels.trailing_zeros().min(VECTOR.ilog2())
}

/// Whether one op has less work than another in every respect.
fn is_less(small: &Compared, large: &Compared) -> bool {
    large.sizes.contains(&small.sizes)
        && small.fill.iter().zip(large.fill).all(|(small, large)| *small >= large)
}

/// Pairs of a smaller op and a larger one that is certainly faster, by the numbers of their rows.
fn contradictions(rows: &mut [Compared]) -> Vec<(usize, usize)> {
    rows.sort_by(|a, b| {
        (a.sizes.log_work(), a.row).partial_cmp(&(b.sizes.log_work(), b.row)).expect("finite")
    });
    // The fastest of each row and all rows with more work. Most rows are not slower than it, so their pairs need no
    // check.
    let mut fastest: Vec<f64> = rows.iter().map(|row| row.high).collect();
    for i in (1..fastest.len()).rev() {
        fastest[i - 1] = fastest[i - 1].min(fastest[i]);
    }
    let mut pairs = Vec::new();
    for (i, small) in rows.iter().enumerate() {
        let bar = small.low / CONTRADICTION;
        let slower = |from: usize| fastest.get(from).is_some_and(|&high| high < bar);
        for (j, large) in rows.iter().enumerate().skip(i + 1) {
            if !slower(j) {
                break;
            }
            if large.high < bar && is_less(small, large) {
                pairs.push((small.row, large.row));
            }
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;
    use latlas_shared::testing::{key, row};
    use proptest::prelude::*;

    /// Marks rows of `Conv3x3` with these channels and latencies: the statuses, and the reasons of suspects.
    fn judged(rows: &[(u32, f64)]) -> Vec<Option<String>> {
        let key = |channels| key(&format!("Conv3x3:n1-h28-w28-i{channels}-o{channels}-s1"));
        let mut rows: Vec<Row> =
            rows.iter().map(|&(channels, micros)| row(&key(channels), micros)).collect();
        mark_suspects(&mut rows, Catalog::builtin());
        rows.into_iter()
            .map(|row| row.reason.filter(|_| row.status == RowStatus::Suspect))
            .collect()
    }

    #[test]
    fn the_row_that_contradicts_most_is_suspect() {
        let sound = [(8, 10.0), (16, 20.0), (32, 60.0), (64, 200.0)];
        assert_eq!(judged(&sound), vec![None; 4]);
        // Slower than two larger ones.
        let marked = judged(&[(8, 150.0), (16, 20.0), (32, 60.0), (64, 200.0)]);
        let reason =
            "it takes 7.5 times as long as Conv3x3:n1-h28-w28-i16-o16-s1: measure both again";
        assert_eq!(marked, [Some(reason.to_owned()), None, None, None]);
        // Faster than two smaller ones.
        let marked = judged(&[(8, 10.0), (16, 20.0), (32, 60.0), (64, 4.0)]);
        assert!(marked[3].as_ref().unwrap().contains("1/2.5 of the time of"), "{marked:?}");
        assert_eq!(&marked[..3], &[None, None, None]);
    }

    #[test]
    fn of_two_rows_both_are_suspect() {
        assert!(judged(&[(8, 50.0), (16, 20.0)]).iter().all(Option::is_some));
        // Within a factor of two, if the intervals are considered.
        assert!(judged(&[(8, 41.0), (16, 20.0)]).iter().all(Option::is_none));
    }

    #[test]
    fn channels_that_fill_no_vector_may_take_longer() {
        let slow_and_fast = |slow, fast| judged(&[(slow, 500.0), (fast, 100.0)]);
        assert!(slow_and_fast(65, 72).iter().all(Option::is_none));
        assert!(slow_and_fast(4, 8).iter().all(Option::is_none));
        assert!(slow_and_fast(72, 80).iter().all(Option::is_some), "both are whole vectors");
        assert!(slow_and_fast(64, 65).iter().all(Option::is_some));
    }

    #[test]
    fn only_what_is_smaller_in_every_size_is_compared() {
        let keys = ["Conv3x3:n1-h56-w56-i8-o8-s1", "Conv3x3:n1-h28-w28-i32-o32-s1"];
        let mut rows = vec![row(&key(keys[0]), 500.0), row(&key(keys[1]), 10.0)];
        mark_suspects(&mut rows, Catalog::builtin());
        assert!(rows.iter().all(|row| row.status == RowStatus::Ok));
    }

    proptest! {
        /// The early exit skips nothing: the pairs are the same as in a check of all pairs.
        #[test]
        fn no_pair_is_overlooked(
            rows in prop::collection::vec((1u32..20, 1.0f64..100.0), 1..30),
        ) {
            let op = Catalog::builtin().op("Conv3x3").unwrap();
            let mut all: Vec<Compared> = rows
                .iter()
                .enumerate()
                .map(|(index, &(channels, micros))| {
                    let key = key(&format!("Conv3x3:n1-h28-w28-i{channels}-o8-s1"));
                    let sizes = Sizes::new(op, &key.shape).unwrap();
                    Compared { row: index, sizes, fill: [1, 1], low: micros, high: micros }
                })
                .collect();
            let mut expected = Vec::new();
            for (a, &(small, slow)) in rows.iter().enumerate() {
                for (b, &(large, fast)) in rows.iter().enumerate() {
                    if small < large && fast < slow / CONTRADICTION {
                        expected.push((a, b));
                    }
                }
            }
            let mut found = contradictions(&mut all);
            // For equal sizes, which real rows never have, either order is correct.
            found.retain(|&(a, b)| rows[a].0 != rows[b].0);
            found.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn a_table_that_grows_with_its_ops_has_no_suspect(
            steps in prop::collection::vec(1.0f64..10.0, 1..20),
        ) {
            let mut micros = 1.0;
            let rows: Vec<(u32, f64)> = steps
                .iter()
                .zip(1..)
                .map(|(step, channels)| {
                    micros *= step;
                    (channels, micros)
                })
                .collect();
            prop_assert!(judged(&rows).iter().all(Option::is_none));
        }
    }
}
