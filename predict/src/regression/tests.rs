use super::*;
use proptest::prelude::*;

/// Pseudorandom numbers that are the same each time: SplitMix64 (Steele, Lea and Flood 2014).
struct Numbers(u64);

impl Numbers {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Approximately normal with variance 1.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }

    /// A latency of a simulated device: the larger of its times for arithmetic and for memory, plus a constant for the
    /// call, with partly filled vectors and a noise of `noise`.
    fn roofline(&mut self, noise: f64) -> Point {
        let size = (7.0 * 2f64.powf(4.0 * self.uniform())).round();
        let [c_in, c_out] = [(); 2].map(|()| (8.0 * 2f64.powf(5.0 * self.uniform())).round());
        let flops = 9.0 * size * size * c_in * c_out;
        let moved = size * size * (c_in + c_out) + 9.0 * c_in * c_out;
        let filled = c_out / ((c_out / 16.0).ceil() * 16.0);
        let micros = 3.0 + f64::max(flops / 2e4 / filled, moved / 2e3);
        let work = (flops + moved).ln();
        Point {
            features: vec![work, flops.ln(), moved.ln(), size.ln(), c_in.ln(), c_out.ln()],
            targets: vec![micros.ln() - work + noise * self.normal()],
            variance: 0.0,
        }
    }
}

fn rooflines(seed: u64, count: usize) -> Vec<Point> {
    let mut numbers = Numbers(seed);
    (0..count).map(|_| numbers.roofline(0.03)).collect()
}

fn same(a: &[Guess], b: &[Guess]) -> bool {
    let close = |a: f64, b: f64| (a - b).abs() < 1e-6;
    a.iter().zip(b).all(|(a, b)| close(a.value, b.value) && close(a.error, b.error))
}

#[test]
fn intervals_cover_nine_new_points_in_ten() {
    for (count, range) in [(12, 0.80..=1.0), (40, 0.85..=0.96), (100, 0.87..=0.95)] {
        let (mut inside, mut all) = (0, 0);
        for seed in 0..8 {
            let mut points = rooflines(seed, count + 150);
            let new = points.split_off(count);
            let regression = Regression::fit(&points).unwrap();
            for point in new {
                let guess = regression.at(&point.features)[0];
                all += 1;
                inside += u32::from((guess.value - point.targets[0]).abs() <= guess.error);
            }
        }
        let share = f64::from(inside) / f64::from(all);
        assert!(range.contains(&share), "{share} of new points from {count}");
    }
}

/// More accurate than "latency is proportional to work", whose errors are the targets' spread. Of the remaining error,
/// 0.02 is the noise of the new points themselves.
#[test]
fn intervals_cover_points_of_groups_that_were_never_seen() {
    // Each group of five is faster or slower as a whole than its features predict.
    let (mut inside, mut all) = (0, 0);
    for seed in 0..4 {
        let mut numbers = Numbers(seed);
        let mut group = || {
            let offset = 0.3 * numbers.normal();
            let mut points: Vec<Point> = (0..5).map(|_| numbers.roofline(0.03)).collect();
            points.iter_mut().for_each(|point| point.targets[0] += offset);
            points
        };
        let points: Vec<Point> = (0..25).flat_map(|_| group()).collect();
        let groups: Vec<usize> = (0..points.len()).map(|i| i / 5).collect();
        let regression = Regression::fit_in_groups(&points, &groups).unwrap();
        for point in (0..20).flat_map(|_| group()) {
            let guess = regression.at(&point.features)[0];
            all += 1;
            inside += u32::from((guess.value - point.targets[0]).abs() <= guess.error);
        }
    }
    let share = f64::from(inside) / f64::from(all);
    assert!((0.82..=0.97).contains(&share), "{share}");
}

#[test]
fn few_groups_say_nothing_of_others() {
    let points = rooflines(1, 40);
    let groups: Vec<usize> = (0..40).map(|i| i % (FEWEST_POINTS - 1)).collect();
    let error = Regression::fit_in_groups(&points, &groups).unwrap_err();
    assert_eq!(error, FitError::FewGroups { groups: 8 });
}

#[test]
fn more_points_come_nearer_than_proportionality_does() {
    let mut points = rooflines(1, 340);
    let new = points.split_off(240);
    let error = |count: usize| {
        let regression = Regression::fit(&points[..count]).unwrap();
        let off = |p: &Point| (regression.at(&p.features)[0].value - p.targets[0]).abs();
        stats::median(&new.iter().map(off).collect::<Vec<f64>>())
    };
    let targets: Vec<f64> = points.iter().map(|p| p.targets[0]).collect();
    let middle = stats::median(&targets);
    let naive = stats::median(&targets.iter().map(|t| (t - middle).abs()).collect::<Vec<f64>>());
    let (few, many) = (error(20), error(240));
    assert!(many < few && few < naive && many < naive / 3.0, "{many} {few} {naive}");
}

#[test]
fn a_guess_far_from_all_points_may_be_farther_off() {
    let points = rooflines(2, 60);
    let regression = Regression::fit(&points).unwrap();
    let near = regression.at(&points[7].features)[0].error;
    let far: Vec<f64> = points[7].features.iter().map(|f| f + 3.0).collect();
    assert!(regression.at(&far)[0].error > 2.0 * near);
}

/// A point with known noise has less weight.
#[test]
fn a_noisy_point_pulls_less() {
    let mut points = rooflines(3, 40);
    let place = points[5].features.clone();
    points[5].targets[0] += 0.5;
    let value = |points: &[Point]| Regression::fit(points).unwrap().at(&place)[0].value;
    let without = value(&[&points[..5], &points[6..]].concat());
    let exact = value(&points);
    points[5].variance = 1.0;
    let noisy = value(&points);
    assert!((noisy - without).abs() < 0.5 * (exact - without).abs(), "{without} {exact} {noisy}");
}

#[test]
fn few_or_equal_points_are_not_too_much_to_ask() {
    let points = rooflines(4, FEWEST_POINTS);
    let error = Regression::fit(&points[1..]).unwrap_err();
    assert_eq!(error.to_string(), "that takes 9 points, and there are 8");
    let equal = vec![points[0].clone(); 12];
    let guess = Regression::fit(&equal).unwrap().at(&points[0].features)[0];
    assert!((guess.value - points[0].targets[0]).abs() < 1e-9 && guess.error.is_finite());
}

/// Points on a grid support one another, so the error between its levels is determined by leaving out whole levels.
#[test]
fn a_place_between_the_levels_of_a_grid_may_be_farther_off() {
    let value = |x: f64, y: f64| (3.0 * x).sin() + y;
    let mut points = Vec::new();
    for x in 0..6 {
        for y in 0..6 {
            let [x, y] = [x, y].map(|at| f64::from(at) / 2.0);
            points.push(Point { features: vec![x, y], targets: vec![value(x, y)], variance: 0.0 });
        }
    }
    points.remove(14);
    let regression = Regression::fit(&points).unwrap();
    let on = regression.at(&[1.0, 1.0])[0].error;
    for x in [0.75, 1.25, 1.75] {
        let guess = regression.at(&[x, 1.0])[0];
        assert!((guess.value - value(x, 1.0)).abs() < guess.error, "{x}: {guess:?}");
        assert!(guess.error > 3.0 * on, "{x}: {guess:?}, {on} on the grid");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn the_order_of_points_does_not_matter(seed in any::<u64>(), turn in 1usize..30) {
        let points = rooflines(seed, 30);
        let mut turned = points.clone();
        turned.rotate_left(turn);
        turned.swap(0, 7);
        let [one, other] = [&points, &turned].map(|points| Regression::fit(points).unwrap());
        let place = &rooflines(seed ^ 1, 1)[0].features;
        prop_assert_eq!(one.at(place), other.at(place));
    }

    /// Other units of a target (a factor, in logarithms) or of a feature change nothing.
    #[test]
    fn units_do_not_matter(seed in any::<u64>(), shift in -3.0f64..3.0, factor in 0.1f64..10.0) {
        let points = rooflines(seed, 30);
        let place = rooflines(seed ^ 1, 1)[0].features.clone();
        let guess = Regression::fit(&points).unwrap().at(&place);
        let shifted: Vec<Point> = points
            .iter()
            .map(|p| Point { targets: vec![p.targets[0] + shift], ..p.clone() })
            .collect();
        let moved = [Guess { value: guess[0].value + shift, ..guess[0] }];
        prop_assert!(same(&Regression::fit(&shifted).unwrap().at(&place), &moved));
        let scale = |features: &[f64]| features.iter().map(|f| f * factor).collect::<Vec<f64>>();
        let scaled: Vec<Point> =
            points.iter().map(|p| Point { features: scale(&p.features), ..p.clone() }).collect();
        prop_assert!(same(&Regression::fit(&scaled).unwrap().at(&scale(&place)), &guess));
    }

    /// All finite inputs give finite estimates.
    #[test]
    fn every_guess_is_a_number(
        values in prop::collection::vec(prop::collection::vec(-1e3f64..1e3, 4), 9..20),
        place in prop::collection::vec(-1e4f64..1e4, 3),
    ) {
        let point = |v: &Vec<f64>| {
            Point { features: v[..3].to_vec(), targets: v[3..].to_vec(), variance: 0.0 }
        };
        let points: Vec<Point> = values.iter().map(point).collect();
        let guess = Regression::fit(&points).unwrap().at(&place)[0];
        prop_assert!(guess.value.is_finite() && guess.error.is_finite() && guess.error >= 0.0);
    }
}

/// The median error of new points, and the share of them that lies inside its interval.
fn judged(regression: &Regression, new: &[Point]) -> (f64, f64) {
    let off = |point: &Point| {
        let guess = regression.at(&point.features)[0];
        ((guess.value - point.targets[0]).abs(), guess.error)
    };
    let all: Vec<(f64, f64)> = new.iter().map(off).collect();
    let errors: Vec<f64> = all.iter().map(|(error, _)| *error).collect();
    let inside = all.iter().filter(|(error, reach)| error <= reach).count();
    (stats::median(&errors), inside as f64 / all.len() as f64)
}

/// However many points there are, the matrix does not exceed its limit, and the result is as accurate as the number of
/// used points allows: the noise of the new points alone gives a median error of 0.02.
#[test]
fn many_points_are_learned_from_some() {
    let mut points = rooflines(11, 20_300);
    let new = points.split_off(20_000);
    let of = |most: usize| {
        let regression = Regression::learn(&points, None, most).unwrap();
        assert_eq!(regression.points(), most);
        judged(&regression, &new)
    };
    let ((error, inside), (error_of_few, _)) = (of(240), of(40));
    assert!(error < 0.06 && error < 0.8 * error_of_few, "{error} {error_of_few}");
    assert!((0.83..=0.96).contains(&inside), "{inside}");
}

/// A group with many points has the same weight as one with a single point.
#[test]
fn groups_count_alike_whatever_their_size() {
    // Nine groups of one point with scores 1 to 9, and one group of ninety points with score 0.
    let scores: Vec<f64> = (1..=9).map(f64::from).chain([0.0; 90]).collect();
    let groups: Vec<usize> = (1..=9).chain([0; 90]).collect();
    let scores = DMatrix::from_column_slice(scores.len(), 1, &scores);
    // Rank 0.9 (10 + 1) of ten groups: the last but none.
    assert_eq!(widths_of_groups(&scores, &groups), [9.0]);
    assert_eq!(widths(vec![scores]), [0.0]);
}
