//! Kendall's rank correlation.

/// Tau-b of two rankings of the same items (Kendall 1945, Biometrika 33:239), -1 to 1: how often two items have the
/// same order in both, with a correction for ties. By Knight's method (1966, JASA 61:436): the number of discordant
/// pairs is the number of exchanges that sort one ranking after the other.
///
/// None if a ranking has no order: fewer than two items, or all equal.
pub(super) fn tau_b(pairs: &[(f64, f64)]) -> Option<f64> {
    let mut pairs = pairs.to_vec();
    pairs.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let all = pairs_of(pairs.len());
    let tied_x = tied(&pairs, |a, b| a.0 == b.0);
    let tied_both = tied(&pairs, |a, b| a == b);
    let mut ys: Vec<f64> = pairs.iter().map(|pair| pair.1).collect();
    let exchanges = sort_counting(&mut ys);
    let tied_y = tied(&ys, |a, b| a == b);
    let (ordered_x, ordered_y) = (all - tied_x, all - tied_y);
    if ordered_x == 0.0 || ordered_y == 0.0 {
        return None;
    }
    let agreement = all - tied_x - tied_y + tied_both - 2.0 * exchanges;
    Some(agreement / (ordered_x.sqrt() * ordered_y.sqrt()))
}

fn pairs_of(n: usize) -> f64 {
    let n = n as f64;
    n * (n - 1.0) / 2.0
}

/// Pairs within runs of equal neighbours.
fn tied<T>(sorted: &[T], equal: impl Fn(&T, &T) -> bool) -> f64 {
    sorted.chunk_by(equal).map(|run| pairs_of(run.len())).sum()
}

/// Merge sort that returns the number of pairs in the wrong order.
fn sort_counting(values: &mut [f64]) -> f64 {
    if values.len() < 2 {
        return 0.0;
    }
    let (left, right) = values.split_at_mut(values.len() / 2);
    let mut exchanges = sort_counting(left) + sort_counting(right);
    let mut merged = Vec::with_capacity(left.len() + right.len());
    let (mut i, mut j) = (0, 0);
    while i < left.len() && j < right.len() {
        if right[j] < left[i] {
            exchanges += (left.len() - i) as f64;
            merged.push(right[j]);
            j += 1;
        } else {
            merged.push(left[i]);
            i += 1;
        }
    }
    merged.extend_from_slice(&left[i..]);
    merged.extend_from_slice(&right[j..]);
    values.copy_from_slice(&merged);
    exchanges
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition: over all pairs, the signs of both differences.
    fn by_definition(pairs: &[(f64, f64)]) -> Option<f64> {
        let sign = |a: f64, b: f64| f64::from(i8::from(a > b) - i8::from(a < b));
        let (mut both, mut x, mut y) = (0.0, 0.0, 0.0);
        for (i, a) in pairs.iter().enumerate() {
            for b in &pairs[..i] {
                let (dx, dy) = (sign(a.0, b.0), sign(a.1, b.1));
                both += dx * dy;
                x += dx * dx;
                y += dy * dy;
            }
        }
        (x > 0.0 && y > 0.0).then(|| both / f64::sqrt(x * y))
    }

    proptest! {
        #[test]
        fn it_is_what_its_definition_says(
            // Few distinct values, so that ties occur.
            pairs in prop::collection::vec((0u8..8, 0u8..8), 0..40),
        ) {
            let pairs: Vec<(f64, f64)> =
                pairs.into_iter().map(|(x, y)| (f64::from(x), f64::from(y))).collect();
            match (tau_b(&pairs), by_definition(&pairs)) {
                (Some(fast), Some(slow)) => prop_assert!((fast - slow).abs() < 1e-12, "{fast} {slow}"),
                (fast, slow) => prop_assert_eq!(fast, slow),
            }
        }
    }

    #[test]
    fn order_and_its_reverse() {
        let rising: Vec<(f64, f64)> = (0..9).map(f64::from).map(|x| (x, x * x)).collect();
        let falling: Vec<(f64, f64)> = rising.iter().map(|&(x, y)| (x, -y)).collect();
        assert_eq!((tau_b(&rising), tau_b(&falling)), (Some(1.0), Some(-1.0)));
        assert_eq!(
            (tau_b(&[]), tau_b(&[(1.0, 1.0)]), tau_b(&[(1.0, 2.0), (1.0, 3.0)])),
            (None, None, None)
        );
    }
}
