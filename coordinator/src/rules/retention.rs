//! Which versions of a table are kept.
//!
//! A table that is polled while it grows gets a new version every second, and a search may pin any of them. So all
//! versions are kept for some hours, and of older ones the last of each minute, hour or day. The last version of a day
//! is also the last of its hour and minute, so the result does not depend on when versions are dropped.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};

/// Up to each age, in hours, the last version of each period of so many seconds is kept. Each period is a multiple of
/// the one before.
const TIERS: [(i64, i64); 3] = [(6, 0), (48, 60), (30 * 24, 3600)];

/// The period beyond all tiers.
const DAY: i64 = 24 * 3600;

/// A version that is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its hash.
    pub version: String,
    /// When it was last made the latest of its table.
    pub latest_at: Timestamp,
    /// Whether it is the latest of its table, or has a name.
    pub pinned: bool,
}

/// The versions of a table to be dropped.
pub fn dropped(versions: &[Kept], now: Timestamp) -> Vec<&str> {
    let widths = TIERS.map(|(_, seconds)| seconds).into_iter().chain([DAY]).filter(|&s| s > 0);
    let mut last: HashMap<(i64, i64), (Timestamp, &str)> = HashMap::new();
    for seconds in widths {
        for version in versions {
            let entry = last.entry(stretch(version, seconds)).or_insert(order(version));
            *entry = order(version).max(*entry);
        }
    }
    let is_dropped = |version: &&Kept| {
        let Some(seconds) = thinned_to(version, now) else { return false };
        !version.pinned && last.get(&stretch(version, seconds)) != Some(&order(version))
    };
    versions.iter().filter(is_dropped).map(|kept| kept.version.as_str()).collect()
}

/// The period, in seconds, whose last version is kept at this version's age; none while all are kept.
fn thinned_to(version: &Kept, now: Timestamp) -> Option<i64> {
    let age = now.duration_since(version.latest_at);
    let tier = TIERS.iter().find(|(hours, _)| age <= SignedDuration::from_hours(*hours));
    let seconds = tier.map_or(DAY, |&(_, seconds)| seconds);
    (seconds > 0).then_some(seconds)
}

/// The period of so many seconds that contains a version.
fn stretch(version: &Kept, seconds: i64) -> (i64, i64) {
    (seconds, version.latest_at.as_second().div_euclid(seconds))
}

/// The order is total, so versions of the same moment have a last one too.
fn order(version: &Kept) -> (Timestamp, &str) {
    (version.latest_at, &version.version)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const NOW: i64 = 1_800_000_000;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// Versions of these ages in seconds; the youngest is the latest, which is always pinned.
    fn aged(ages: &[(i64, bool)]) -> Vec<Kept> {
        let youngest = ages.iter().map(|(age, _)| *age).min();
        let version = |(number, &(age, pinned)): (usize, &(i64, bool))| Kept {
            version: format!("{number:04}"),
            latest_at: at(NOW - age),
            pinned: pinned || Some(age) == youngest,
        };
        ages.iter().enumerate().map(version).collect()
    }

    fn left(versions: &[Kept], now: Timestamp) -> Vec<Kept> {
        let dropped: BTreeSet<&str> = dropped(versions, now).into_iter().collect();
        let kept = versions.iter().filter(|kept| !dropped.contains(kept.version.as_str()));
        kept.cloned().collect()
    }

    #[test]
    fn the_older_the_fewer() {
        const HOUR: i64 = 3600;
        // One version every ten seconds for 40 days, the oldest first.
        let ages: Vec<(i64, bool)> = (0..40 * DAY / 10).rev().map(|n| (10 * n, false)).collect();
        let versions = aged(&ages);
        let kept = left(&versions, at(NOW));
        let between = |from: i64, to: i64| {
            let ages = kept.iter().map(|kept| NOW - kept.latest_at.as_second());
            ages.filter(|age| (from..to).contains(age)).count() as i64
        };
        assert_eq!(between(0, 6 * HOUR), 6 * HOUR / 10);
        assert_eq!(between(7 * HOUR, 47 * HOUR), 40 * 60);
        assert_eq!(between(3 * DAY, 29 * DAY), 26 * 24);
        assert_eq!(between(31 * DAY, 39 * DAY), 8);
    }

    fn versions() -> impl Strategy<Value = Vec<Kept>> {
        let age = prop_oneof![0i64..8 * 3600, 0..3 * DAY, 0..400 * DAY, -3600i64..0];
        prop::collection::vec((age, prop::bool::weighted(0.1)), 0..60).prop_map(|ages| aged(&ages))
    }

    proptest! {
        #[test]
        fn what_is_pinned_or_young_stays(versions in versions()) {
            let gone: BTreeSet<&str> = dropped(&versions, at(NOW)).into_iter().collect();
            for kept in &versions {
                let young = NOW - kept.latest_at.as_second() <= 6 * 3600;
                prop_assert!(!(kept.pinned || young) || !gone.contains(kept.version.as_str()));
            }
        }

        #[test]
        fn dropping_twice_drops_nothing_more(versions in versions()) {
            let kept = left(&versions, at(NOW));
            prop_assert_eq!(dropped(&kept, at(NOW)), Vec::<&str>::new());
        }

        /// Dropped versions stay dropped as time passes, and the number of intermediate clean-ups does not matter.
        #[test]
        fn when_versions_are_dropped_does_not_matter(versions in versions(), later in 0..40 * DAY) {
            let later = at(NOW + later);
            let in_between = left(&versions, at(NOW));
            prop_assert_eq!(left(&in_between, later), left(&versions, later));
        }

        /// Naming a version never drops another one, and removing a name only affects its own version.
        #[test]
        fn a_pin_is_about_one_version(versions in versions(), which in any::<prop::sample::Index>()) {
            prop_assume!(!versions.is_empty());
            let mut pinned = versions.clone();
            let which = which.index(versions.len());
            pinned[which].pinned = true;
            let mut expected = dropped(&versions, at(NOW));
            expected.retain(|version| *version != versions[which].version);
            prop_assert_eq!(dropped(&pinned, at(NOW)), expected);
        }
    }
}
