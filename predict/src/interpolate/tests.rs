use super::*;
use crate::TableIndex;
use latlas_shared::testing::{MIB, key, row, table};
use ops_catalog::{Catalog, OpKey};
use proptest::prelude::*;

fn conv(size: u32, c_in: u32, c_out: u32) -> OpKey {
    key(&format!("Conv3x3:n1-h{size}-w{size}-i{c_in}-o{c_out}-s1"))
}

fn estimate(index: &TableIndex, key: &OpKey, distance: f64) -> Result<Estimate, EstimateError> {
    let op = Catalog::builtin().op(&key.op).unwrap();
    index.estimate(op, &key.shape, distance)
}

/// Latency that is nearly proportional to the work: a call has a fixed cost, and small channels use the machine badly.
fn plausible(key: &OpKey) -> f64 {
    let cost = Catalog::builtin().op(&key.op).unwrap().at(&key.shape).unwrap().cost;
    let efficiency = 1.0 - (-f64::from(key.shape.channels_in) / 24.0).exp();
    2.0 + cost.flops as f64 / 2e4 / efficiency + cost.activation_elements as f64 / 1e4
}

const SIZES: [u32; 3] = [14, 28, 56];
const WIDTHS: [u32; 4] = [16, 32, 64, 96];

fn grid() -> Vec<OpKey> {
    let mut keys = Vec::new();
    for size in SIZES {
        for c_in in WIDTHS {
            keys.extend(WIDTHS.map(|c_out| conv(size, c_in, c_out)));
        }
    }
    keys
}

fn index_of(keys: &[OpKey], micros: impl Fn(&OpKey) -> f64) -> TableIndex {
    TableIndex::new(table(keys.iter().map(|key| row(key, micros(key))).collect())).unwrap()
}

/// The grid at several batches and strides, subsampled.
fn many_kinds() -> Vec<OpKey> {
    let mut keys = grid();
    for (number, key) in keys.iter_mut().enumerate() {
        key.shape.batch = [1, 2, 4][number % 3];
        key.shape.stride = [1, 2][number / 3 % 2];
    }
    keys
}

#[test]
fn refusals_say_why() {
    let index = index_of(&grid(), plausible);
    let few = index_of(&grid()[..FEWEST_POINTS - 1], plausible);
    let diagonal: Vec<OpKey> = (1..=12).map(|i| conv(16, 16 * i, 16 * i)).collect();
    let diagonal = index_of(&diagonal, plausible);
    // Large maps with few channels, and small ones with many, as in networks.
    let mut network = Vec::new();
    for (size, c) in [(112, 16), (56, 32), (28, 64), (14, 128)] {
        network.extend([conv(size, c, c), conv(size, c, 2 * c), conv(size, c / 2, c)]);
    }
    let network = index_of(&network, plausible);
    for (index, key, why) in [
        (&index, conv(57, 32, 32), "input_h 57 is outside the measured range 14 to 56"),
        (&index, conv(56, 2, 96), "channels_in 2 is outside the measured range 16 to 96"),
        (&index, conv(56, 32, 97), "channels_out 97 is outside the measured range 16 to 96"),
        (&index, key("Conv3x3:n2-h56-w56-i32-o32-s1"), "batch 2 was not measured, only 1"),
        (&index, key("Conv3x3:n1-h56-w56-i32-o32-s2"), "stride 2 was not measured, only 1"),
        (
            &index,
            key("Conv3x3:n1-h56-w8-i96-o96-s1"),
            "input_w 8 is outside the measured range 14 to 56",
        ),
        (&index, key("Conv5x5:n1-h56-w56-i32-o32-s1"), "the table has no row of Conv5x5"),
        (&few, conv(14, 40, 20), "that takes 9 rows of Conv3x3, and the table has 8"),
        (&diagonal, conv(16, 16, 192), "channels_out / channels_in 12 was not measured, only 1"),
        (
            &network,
            conv(112, 128, 128),
            "FLOPs 1849688064 is outside the measured range 14450688 to 57802752",
        ),
    ] {
        let error = estimate(index, &key, 0.0).unwrap_err().to_string();
        assert!(error.contains(why), "{key}: {error}");
    }
}

#[test]
fn what_is_smaller_is_bounded_by_the_next_larger_row() {
    let index = index_of(&grid(), plausible);
    let wild =
        |key: &OpKey| plausible(key) * if key.shape.channels_in / 16 % 4 == 2 { 9.0 } else { 1.0 };
    let wild = index_of(&grid(), wild);
    for (index, asked, larger) in [
        (&index, conv(12, 16, 16), conv(14, 16, 16)),
        (&index, conv(56, 15, 32), conv(56, 16, 32)),
        // No model can be learned from such rows.
        (&wild, conv(13, 16, 16), conv(14, 16, 16)),
    ] {
        let found = estimate(index, &asked, (8 * MIB) as f64).unwrap();
        let op = Catalog::builtin().op("Conv3x3").unwrap();
        let work = |key: &OpKey| Sizes::new(op, &key.shape).unwrap().log_work().exp();
        let (most, least) = (plausible(&larger), plausible(&larger) * work(&asked) / work(&larger));
        let (high, low) = (found.micros * found.error.exp(), found.micros / found.error.exp());
        assert!((high / most - 2.0).abs() < 1e-9 && (least / low - 2.0).abs() < 1e-9, "{found:?}");
        assert!(found.micros < most && found.micros > least, "{found:?}");
    }
}

#[test]
fn shapes_between_rows_are_estimated_with_an_error_that_holds() {
    let index = index_of(&grid(), plausible);
    let (mut inside, mut all) = (0, 0);
    for size in [20, 40] {
        for c_in in [24, 48, 80] {
            for c_out in [24, 48, 80] {
                let key = conv(size, c_in, c_out);
                let found = estimate(&index, &key, (8 * MIB) as f64).unwrap();
                let off = (found.micros / plausible(&key)).ln().abs();
                all += 1;
                inside += usize::from(off <= found.error);
            }
        }
    }
    assert!(inside * 10 >= all * 9, "{inside} of {all}");
}

/// Rows of one batch help with another one; groups by batch and stride would be too small.
#[test]
fn batches_and_strides_are_learned_together() {
    let index = index_of(&many_kinds(), plausible);
    let key = key("Conv3x3:n2-h28-w28-i48-o48-s2");
    let found = estimate(&index, &key, (8 * MIB) as f64).unwrap();
    let off = (found.micros / plausible(&key)).ln().abs();
    assert!(off <= found.error && found.error < 0.4, "{off} {found:?}");
}

#[test]
fn a_shape_far_from_the_rows_has_a_larger_error() {
    let mut keys = grid();
    keys.retain(|key| key.shape.channels_in != 32);
    let index = index_of(&keys, plausible);
    let near = estimate(&index, &conv(56, 62, 64), 0.0).unwrap();
    let far = estimate(&index, &conv(40, 31, 46), 0.0).unwrap();
    assert!(far.error > 1.2 * near.error, "{far:?} {near:?}");
}

/// Rows of ten ops with many rows each, and of one with two.
fn of_many_ops() -> Vec<OpKey> {
    let many = [
        "Conv3x3",
        "Conv5x5",
        "Conv1x1",
        "DepthwiseConv3x3",
        "MBConv3_3x3",
        "MBConv6_3x3",
        "MBConv3_5x5",
        "MBConv6_5x5",
        "MBConv3_3x3_ReLU",
        "MBConv6_5x5_ReLU",
    ];
    let mut keys = Vec::new();
    for op in many {
        for size in SIZES {
            for c in WIDTHS {
                keys.push(key(&format!("{op}:n1-h{size}-w{size}-i{c}-o{c}-s1")));
            }
        }
    }
    keys.push(key("MBConv6_3x3_ReLU:n1-h14-w14-i32-o32-s1"));
    keys.push(key("MBConv6_3x3_ReLU:n1-h28-w28-i16-o16-s1"));
    keys
}

#[test]
fn an_op_with_few_rows_is_estimated_from_those_of_others() {
    let index = index_of(&of_many_ops(), plausible);
    let asked = key("MBConv6_3x3_ReLU:n1-h56-w56-i64-o64-s1");
    let found = estimate(&index, &asked, (8 * MIB) as f64).unwrap();
    let off = (found.micros / plausible(&asked)).ln().abs();
    assert!(off <= found.error && found.error < 0.5, "{off} {found:?}");
    // Unmeasured sizes, or larger than all measured ones.
    for (asked, why) in [
        ("MBConv3_3x3_SE:n1-h56-w56-i64-o64-s1", "the table has no row of MBConv3_3x3_SE"),
        (
            "MBConv6_3x3_ReLU:n1-h112-w112-i64-o64-s1",
            "input_h 112 is outside the measured range 14 to 56",
        ),
        ("Conv3x3:n1-h112-w112-i64-o64-s1", "input_h 112 is outside the measured range 14 to 56"),
    ] {
        let error = estimate(&index, &key(asked), 0.0).unwrap_err().to_string();
        assert!(error.contains(why), "{asked}: {error}");
    }
}

fn latencies() -> impl Strategy<Value = Vec<f64>> {
    prop::collection::vec(0.9f64..1.1, grid().len()).prop_map(|noise| {
        grid().iter().zip(noise).map(|(key, noise)| plausible(key) * noise).collect()
    })
}

fn with(latencies: &[f64]) -> TableIndex {
    let rows = grid().iter().zip(latencies).map(|(key, &micros)| row(key, micros)).collect();
    TableIndex::new(table(rows)).unwrap()
}

fn anywhere() -> impl Strategy<Value = OpKey> {
    (10u32..64, 12u32..110, 12u32..110).prop_map(|(size, c_in, c_out)| conv(size, c_in, c_out))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn a_measured_shape_is_estimated_near_its_own_latency(
        latencies in latencies(),
        which in 0..grid().len(),
        distance in 0.0f64..1e8,
    ) {
        let index = with(&latencies);
        let key = &grid()[which];
        let (_, measured, _) = index.table().rows[which].read_curve(distance).unwrap();
        let found = estimate(&index, key, distance).unwrap();
        prop_assert!((found.micros / measured).ln().abs() <= found.error.max(0.1));
    }

    #[test]
    fn shapes_inside_the_measured_range_are_estimated_and_none_beyond(
        latencies in latencies(),
        key in anywhere(),
    ) {
        let shape = key.shape;
        let Shape { input_h, channels_in, channels_out, .. } = shape;
        let beyond = input_h > 56 || channels_in > 96 || channels_out > 96;
        let below = input_h < 14 || channels_in < 16 || channels_out < 16;
        let found = estimate(&with(&latencies), &key, 0.0);
        match (beyond, below) {
            (true, _) => prop_assert!(found.is_err(), "{:?}", found),
            (false, false) => prop_assert!(found.is_ok(), "{:?}", found),
            // By bounds alone, which are too wide if the next larger row is far away.
            (false, true) => {
                let error = found.map_or(2.0, |estimate| estimate.error.exp());
                prop_assert!((2.0..=5.0).contains(&error), "off by a factor of up to {}", error);
            }
        }
    }

    #[test]
    fn estimates_scale_with_the_latencies(
        latencies in latencies(),
        key in anywhere(),
        factor in 0.1f64..10.0,
        distance in 0.0f64..1e8,
    ) {
        let scaled: Vec<f64> = latencies.iter().map(|l| l * factor).collect();
        let one = estimate(&with(&latencies), &key, distance);
        let other = estimate(&with(&scaled), &key, distance);
        match (one, other) {
            (Ok(one), Ok(other)) => {
                prop_assert!((other.micros / one.micros / factor - 1.0).abs() < 1e-6);
                prop_assert!((other.error - one.error).abs() < 1e-6);
            }
            (one, other) => prop_assert_eq!(one, other),
        }
    }

    #[test]
    fn the_order_of_rows_does_not_matter(latencies in latencies(), key in anywhere()) {
        let index = with(&latencies);
        let mut reversed = index.table().clone();
        reversed.rows.reverse();
        let reversed = TableIndex::new(reversed).unwrap();
        if let (Ok(one), Ok(other)) = (estimate(&index, &key, 0.0), estimate(&reversed, &key, 0.0)) {
            prop_assert!((other.micros / one.micros - 1.0).abs() < 1e-9);
            prop_assert!((other.error - one.error).abs() < 1e-9);
        }
    }
}

proptest! {
    #[test]
    fn a_curve_stays_within_its_points(micros in 1.0f64..1e6, a in 0.0f64..1e8, b in 0.0f64..1e8) {
        let row = row(&conv(56, 32, 32), micros);
        let read = |distance| row.read_curve(distance).unwrap();
        let (low, value, high) = read(a);
        prop_assert!(low <= value && value <= high);
        prop_assert!((micros * 0.8..=micros * 1.4 * (1.0 + 1e-12)).contains(&value));
        // This curve rises.
        prop_assert!(read(a.min(b)).1 <= read(a.max(b)).1 * (1.0 + 1e-12));
    }
}

/// Several callers request estimates for one op of a space of 20,000 keys. They wait for the one that learns, from the
/// most rows that a matrix may have.
#[test]
fn a_large_op_is_learned_once_and_from_some_of_its_rows() {
    let keys = (0..20_000).map(|n| conv(7 + n % 50, 8 + n / 50 % 20 * 4, 8 + n / 1000 * 4));
    let index = index_of(&keys.collect::<Vec<_>>(), plausible);
    let interpolator = Interpolator::new(index.measured_places());
    let estimate = |key: &OpKey| {
        let op = Catalog::builtin().op(&key.op).unwrap();
        let found = interpolator.estimate(&index.table().rows, op, &key.shape, 8.0 * MIB as f64);
        found.unwrap().micros
    };
    assert_eq!(interpolator.times_learned(), 0, "nothing was asked for");
    let between = conv(20, 22, 30);
    let estimates: Vec<f64> = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..4).map(|_| scope.spawn(|| estimate(&between))).collect();
        asking.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(estimates.iter().all(|micros| *micros == estimates[0]), "{estimates:?}");
    assert!((estimates[0] / plausible(&between)).ln().abs() < 0.2, "{estimates:?}");
    estimate(&conv(21, 22, 30));
    assert_eq!(interpolator.times_learned(), 1);
    let of_op = interpolator.ops.values().next().unwrap();
    assert_eq!(of_op.rows.len(), 20_000);
    let learned = of_op.learned.get().unwrap().as_ref().unwrap();
    assert_eq!(learned.curves.regression.points(), crate::regression::MOST_POINTS);
}
