use super::*;
use latlas_shared::testing::{failed, key, row, table};
use latlas_shared::{CurvePoint, LIBTORCH_EAGER, Row, Table};
use ops_catalog::{Catalog, NetworkSpec};
use proptest::prelude::*;
use serde_json::json;

/// What a table of libtorch without networks has, whose fastest row takes so long.
fn uncalibrated(quickest_micros: f64) -> Calibration {
    calibration::uncalibrated(&calibration::Prior::new(LIBTORCH_EAGER, quickest_micros))
}

/// Op, output channels and stride of each layer.
type Layers = Vec<(&'static str, u32, u32)>;

fn network(c: u32, size: u32, layers: &Layers) -> Network {
    let layers: Vec<_> = layers
        .iter()
        .map(|(op, c_out, stride)| json!({"op": op, "c_out": c_out, "stride": stride}))
        .collect();
    let input = json!({"n": 1, "c": c, "h": size, "w": size});
    let spec = json!({"input": input, "layers": layers}).to_string();
    Network::new(&NetworkSpec::from_json(&spec).unwrap(), Catalog::builtin()).unwrap()
}

fn plan(network: &Network) -> NetworkPlan {
    network.plan(Catalog::builtin()).unwrap()
}

/// A table of all rows of a network, each with a different latency.
fn table_of(plan: &NetworkPlan, factor: f64) -> Arc<TableIndex> {
    let mut keys: Vec<OpKey> = plan.steps.iter().map(|step| step.key.clone()).collect();
    keys.sort();
    keys.dedup();
    let rows = keys.iter().enumerate().map(|(i, key)| row(key, factor * (10.0 + i as f64)));
    Arc::new(TableIndex::new(table(rows.collect())).unwrap())
}

fn layers() -> impl Strategy<Value = Layers> {
    let layer = (
        prop::sample::select(vec!["Conv3x3", "MBConv6_3x3"]),
        prop::sample::select(vec![8, 16, 24]),
        1u32..=2,
    );
    prop::collection::vec(layer, 1..6)
}

proptest! {
    #[test]
    fn the_ops_of_a_network_cost_what_those_of_its_parts_cost(first in layers(), second in layers()) {
        let whole: Layers = first.iter().chain(&second).copied().collect();
        let whole = plan(&network(3, 1024, &whole));
        let first = plan(&network(3, 1024, &first));
        let cut = &whole.steps[first.steps.len()].key.shape;
        let second = plan(&network(cut.channels_in, cut.input_h, &second));
        let index = table_of(&whole, 1.0);
        let predictor = Predictor::new(Arc::clone(&index), Missing::Error);
        // Curves are constant beyond their last point, so the footprint does not matter there.
        let calibration = Calibration { footprint_mib: 1024.0, ..uncalibrated(1.0) };
        let predictor = predictor.with_calibration(calibration);
        let [a, b] = [first, second].map(|part| predictor.predict_plan(&part).unwrap());
        let whole = predictor.predict_plan(&whole).unwrap();
        let sum = a.ops_micros + b.ops_micros;
        prop_assert!((sum / whole.ops_micros - 1.0).abs() < 1e-12);
        prop_assert_eq!(a.flops + b.flops, whole.flops);
        prop_assert_eq!(a.params + b.params, whole.params);
    }

    #[test]
    fn predictions_scale_with_the_table(layers in layers(), factor in 0.01f64..100.0) {
        let plan = plan(&network(3, 256, &layers));
        let predict = |factor| {
            let index = table_of(&plan, factor);
            Predictor::new(Arc::clone(&index), Missing::Error).predict_plan(&plan).unwrap()
        };
        let (one, scaled) = (predict(1.0), predict(factor));
        for (one, scaled) in [
            (one.latency_micros, scaled.latency_micros),
            (one.low_micros, scaled.low_micros),
            (one.high_micros, scaled.high_micros),
        ] {
            prop_assert!((scaled / one / factor - 1.0).abs() < 1e-9);
        }
        prop_assert!(one.low_micros <= one.latency_micros && one.latency_micros <= one.high_micros);
        prop_assert!((one.measured_share - 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_packed_table_says_the_same(layers in layers(), scale in 0.9f64..1.1, host in 0.0f64..40.0) {
        let plan = plan(&network(3, 256, &layers));
        let mut table = table_of(&plan, 1.0).table().clone();
        if host > 4.0 {
            for row in &mut table.rows {
                issued_in(row, host);
            }
        }
        let index = Arc::new(TableIndex::new(table).unwrap());
        let calibration = Calibration { scale, per_op_micros: 0.5, ..uncalibrated(1.0) };
        let predictor = || {
            Predictor::new(Arc::clone(&index), Missing::Error).with_calibration(calibration.clone())
        };
        let mut packed = PackedTable::new(predictor());
        let ops: Vec<PackedOp> =
            plan.steps.iter().map(|s| packed.op(&s.op, &s.key.shape).unwrap()).collect();
        let fast = packed.predict(&ops, 0).unwrap();
        let slow = predictor().predict_plan(&plan).unwrap();
        for (fast, slow) in [
            (fast.low, slow.low_micros),
            (fast.latency, slow.latency_micros),
            (fast.high, slow.high_micros),
        ] {
            prop_assert!((fast / slow - 1.0).abs() < 1e-9, "{fast} {slow}");
        }
    }

    /// Exactly the rows that were removed from the table are listed, each once.
    #[test]
    fn all_missing_rows_are_listed_once(layers in layers(), out in prop::collection::vec(any::<bool>(), 40)) {
        let plan = plan(&network(3, 256, &layers));
        let mut table = table_of(&plan, 1.0).table().clone();
        let mut kept = out.iter().copied().cycle();
        let mut gone: Vec<OpKey> = Vec::new();
        table.rows.retain(|row| {
            let keep = kept.next() == Some(true);
            if !keep { gone.push(row.key()) }
            keep
        });
        let index = Arc::new(TableIndex::new(table).unwrap());
        let mut listed: Vec<OpKey> = match Predictor::new(Arc::clone(&index), Missing::Error).predict_plan(&plan) {
            Ok(_) => Vec::new(),
            Err(missing) => missing.into_iter().map(|op| op.key).collect(),
        };
        listed.sort();
        prop_assert_eq!(listed, gone);
    }
}

#[test]
fn what_failed_on_the_device_is_not_interpolated() {
    let keys: Vec<OpKey> =
        (1..=12).map(|i| key(&format!("Conv3x3:n1-h16-w16-i{0}-o{0}-s1", 8 * i))).collect();
    let micros = |key: &OpKey| 5.0 + f64::from(key.shape.channels_in).powi(2);
    let mut rows: Vec<_> = keys.iter().map(|key| row(key, micros(key))).collect();
    rows[6] = failed(&keys[6], "out of memory");
    let missing_row = rows.remove(3);
    let index = Arc::new(TableIndex::new(table(rows)).unwrap());
    let predictor = Predictor::new(Arc::clone(&index), Missing::Interpolate);
    let predict = |i: u32| predictor.predict(&network(8 * i, 16, &vec![("Conv3x3", 8 * i, 1)]));
    let estimated = predict(4).unwrap();
    assert_eq!(estimated.ops[0].origin, Origin::Interpolated);
    assert_eq!(estimated.ops[0].key, missing_row.key());
    assert!(estimated.measured_share < 1e-12);
    insta::assert_snapshot!(predict(7).unwrap_err(), @r"
    a row is missing from the table:
      Conv3x3:n1-h16-w16-i56-o56-s1  (it could not be measured: out of memory)
    ");
}

#[test]
fn a_row_of_another_definition_is_named() {
    let plan = plan(&network(8, 16, &vec![("Conv3x3", 8, 1)]));
    let mut old = table_of(&plan, 1.0).table().clone();
    old.rows[0].op_digest = "op1-00000000000000000000000000000000".parse().unwrap();
    let index = Arc::new(TableIndex::new(old).unwrap());
    let missing =
        Predictor::new(Arc::clone(&index), Missing::Error).predict_plan(&plan).unwrap_err();
    let expected = "the table has it for another definition of Conv3x3, digest \
                    op1-00000000000000000000000000000000; this catalog's is op1-";
    assert!(missing[0].why.starts_with(expected), "{}", missing[0].why);
}

#[test]
fn on_a_gpu_the_two_clocks_make_the_latency() {
    let plan = plan(&network(8, 16, &vec![("Conv3x3", 8, 1), ("Conv3x3", 8, 1)]));
    let mut table = table_of(&plan, 1.0).table().clone();
    for point in &mut table.rows[0].curve {
        point.host_micros = Some(7.0);
    }
    let index = Arc::new(TableIndex::new(table).unwrap());
    let prediction =
        Predictor::new(Arc::clone(&index), Missing::Error).predict_plan(&plan).unwrap();
    // The host issues the first op in 7 us. When the device has finished it, the second was issued long before.
    let sum: f64 = prediction.ops.iter().map(|op| op.latency_micros).sum();
    assert!(sum > 2.0 * 7.0);
    assert!((prediction.ops_micros - (7.0 + sum)).abs() < 1e-9, "{}", prediction.ops_micros);
}

/// Gives a row a host time, as on a GPU.
fn issued_in(row: &mut Row, host: f64) {
    for point in &mut row.curve {
        point.host_micros = Some(host);
    }
    row.latency_micros = row.latency_micros.map(|micros| micros.max(host));
}

/// A table of rows with a host and a device time, the latter at any distance.
fn gpu_table(times: &[(&OpKey, f64, f64)]) -> Arc<TableIndex> {
    let rows = times.iter().map(|&(key, host, device)| {
        let mut row = row(key, device);
        let level = row.curve[1];
        for point in &mut row.curve {
            *point = CurvePoint { reuse_distance_bytes: point.reuse_distance_bytes, ..level };
        }
        issued_in(&mut row, host);
        row
    });
    Arc::new(TableIndex::new(table(rows.collect())).unwrap())
}

#[test]
fn what_waits_for_the_host_costs_the_device_s_time_behind_a_large_op() {
    let plan =
        plan(&network(8, 16, &vec![("MBConv6_3x3", 8, 1), ("Conv3x3", 8, 1), ("Conv3x3", 8, 1)]));
    let [large, small, _] = [0, 1, 2].map(|i| &plan.steps[i].key);
    let predict = |device_of_large: f64| {
        let index = gpu_table(&[(large, 10.0, device_of_large), (small, 10.0, 2.0)]);
        let prediction =
            Predictor::new(Arc::clone(&index), Missing::Error).predict_plan(&plan).unwrap();
        // Alone, the small op takes as long as its host time.
        assert_eq!(prediction.ops[1].latency_micros, 10.0);
        assert_eq!(prediction.ops[1].device_micros, Some(2.0));
        prediction.ops_micros
    };
    // The host has issued all of them while the device runs the large one.
    assert!((predict(100.0) - (10.0 + 100.0 + 2.0 + 2.0)).abs() < 1e-9);
    // Without a large op to overlap with: the host's time, and the last op's time on the device.
    assert!((predict(3.0) - (3.0 * 10.0 + 2.0)).abs() < 1e-9);
}

#[test]
fn an_interpolated_op_has_a_host_time_too() {
    let keys: Vec<OpKey> = (1..=12)
        .map(|i| key(&format!("Conv3x3:n1-h16-w16-i{0}-o{0}-s1", 8 * i)))
        .filter(|key| key.shape.channels_in != 40)
        .collect();
    let times: Vec<_> =
        keys.iter().map(|key| (key, 9.0, f64::from(key.shape.channels_in))).collect();
    let index = gpu_table(&times);
    let predictor = Predictor::new(Arc::clone(&index), Missing::Interpolate);
    let network = network(40, 16, &vec![("Conv3x3", 40, 1)]);
    let prediction = predictor.predict(&network).unwrap();
    let op = &prediction.ops[0];
    assert_eq!((op.origin, op.host_micros), (Origin::Interpolated, Some(9.0)));
    let device = op.device_micros.unwrap();
    assert!((prediction.ops_micros - (9.0 + device)).abs() < 1e-9, "{prediction:?}");
    let mut packed = PackedTable::new(predictor);
    let step = &plan(&network).steps[0];
    let id = packed.op(&step.op, &step.key.shape).unwrap();
    let fast = packed.predict(&[id], 0).unwrap().latency;
    assert!((fast / prediction.latency_micros - 1.0).abs() < 1e-9, "{fast}");
}

/// On a GPU too, a calibration corrects the combined time of the ops, which is the result of the two-clock model.
#[test]
fn a_calibration_is_fitted_on_the_two_clocks() {
    let plans: Vec<NetworkPlan> =
        (1..=20).map(|count| plan(&network(8, 16, &vec![("Conv3x3", 8, 1); count]))).collect();
    let index = gpu_table(&[(&plans[0].steps[0].key, 40.0, 5.0)]);
    let predictor = Predictor::new(Arc::clone(&index), Missing::Error);
    // The true latency is 3% more than host time for each op and device time for the last.
    let truth = |count: usize| 1.03 * (40.0 * count as f64 + 5.0);
    let networks: Vec<calibration::Example> = plans
        .iter()
        .map(|plan| calibration::Example {
            features: predictor.features(plan).unwrap(),
            measured_micros: truth(plan.steps.len()),
        })
        .collect();
    let fitted = calibration::fit(&networks, &predictor.index().prior());
    let calibrated = predictor.with_calibration(fitted);
    for plan in &plans {
        let error = calibrated.predict_plan(plan).unwrap().latency_micros / truth(plan.steps.len());
        assert!((error - 1.0).abs() < 0.01, "{error}");
    }
}

#[test]
fn a_calibration_moves_the_estimate_and_its_interval() {
    let plan = plan(&network(8, 16, &vec![("Conv3x3", 8, 1)]));
    let mut table = table_of(&plan, 1.0).table().clone();
    let prediction = |table: &Table| {
        let index = Arc::new(TableIndex::new(table.clone()).unwrap());
        Predictor::new(index, Missing::Error).predict_plan(&plan).unwrap()
    };
    let plain = prediction(&table);
    assert_eq!(plain.calibration_networks, 0);
    let unquiet = table.rows[0].unquiet_micros(plain.reuse_distance_bytes).unwrap();
    table.calibration = Some(Calibration {
        scale: 1.1,
        unquiet: 0.5,
        per_op_micros: 1.0,
        per_merge_micros: 100.0,
        covariance: [[0.0; 5]; 5],
        noise: 0.4,
        networks: 20,
        ..uncalibrated(10.0)
    });
    let moved = prediction(&table);
    let expected = 1.1 * plain.ops_micros + 0.5 * unquiet + 1.0;
    assert!((moved.latency_micros - expected).abs() < 1e-9, "{moved:?}");
    assert_eq!((moved.calibration_networks, moved.uncertainty.calibration), (20, 0.0));
    assert!((moved.uncertainty.rows - 0.4 * plain.uncertainty.rows).abs() < 1e-12);
    let width = |p: &Prediction| (p.high_micros - p.low_micros) / p.latency_micros;
    assert!(width(&moved) < width(&plain));
}

/// Errors of different rows are independent, but a row that is used for three ops has the same error three times.
#[test]
fn a_row_that_is_used_again_is_wrong_again() {
    let plan = plan(&network(8, 16, &vec![("Conv3x3", 8, 1); 4]));
    let index = table_of(&plan, 1.0);
    let one =
        |row: &Row| (row.curve[0].ci95_high_micros - row.curve[0].ci95_low_micros) / 2.0 / 1.96;
    let row = &index.table().rows[0];
    let expected = one(row) / row.curve[0].quiet_micros;
    let prediction =
        Predictor::new(Arc::clone(&index), Missing::Error).predict_plan(&plan).unwrap();
    assert!((prediction.uncertainty.rows / expected - 1.0).abs() < 1e-9, "{prediction:?}");
}

#[test]
fn a_packed_table_predicts_graphs_and_knows_its_own_ops() {
    let spec = json!({
        "input": {"n": 1, "c": 8, "h": 16, "w": 16},
        "nodes": [
            {"op": "Conv3x3", "c_out": 8, "stride": 1, "inputs": [-1]},
            {"op": "Conv1x1", "c_out": 8, "stride": 1, "inputs": [0]},
            {"op": "Conv3x3", "c_out": 16, "stride": 2, "inputs": [0, 1]},
        ],
        "output": 2,
    });
    let spec = NetworkSpec::from_json(&spec.to_string()).unwrap();
    let plan = plan(&Network::new(&spec, Catalog::builtin()).unwrap());
    let index = table_of(&plan, 1.0);
    let calibration = Calibration { per_merge_micros: 3.0, ..uncalibrated(1.0) };
    let predictor =
        || Predictor::new(Arc::clone(&index), Missing::Error).with_calibration(calibration.clone());
    let mut packed = PackedTable::new(predictor());
    let ops: Vec<PackedOp> =
        plan.steps.iter().map(|s| packed.op(&s.op, &s.key.shape).unwrap()).collect();
    let merges = plan.steps.iter().filter(|step| step.merge.is_some()).count();
    assert!(merges > 0);
    let fast = packed.predict(&ops, merges).unwrap().latency;
    let slow = predictor().predict_plan(&plan).unwrap().latency_micros;
    assert!((fast / slow - 1.0).abs() < 1e-9, "{fast} {slow}");
    // An op of another table, and an empty network, cause no panic.
    let empty = PackedTable::new(predictor());
    assert_eq!(empty.predict(&ops, merges), None);
    assert_eq!(packed.predict(&[], 0), None);
}

#[test]
fn the_shares_of_ops_add_up_to_the_prediction_of_their_sequence() {
    let plan = plan(&network(
        3,
        64,
        &vec![("Conv3x3", 8, 2), ("MBConv6_3x3", 8, 1), ("MBConv6_3x3", 16, 2)],
    ));
    let index = table_of(&plan, 1.0);
    let calibration =
        Calibration { scale: 1.1, unquiet: 0.5, per_op_micros: -1.0, ..uncalibrated(10.0) };
    let predictor =
        Predictor::new(Arc::clone(&index), Missing::Error).with_calibration(calibration);
    let ops: Vec<(&Op, Shape)> =
        plan.steps.iter().map(|step| (step.op.as_ref(), step.key.shape)).collect();
    let shares = predictor.shares(&ops, plan.cost.weight_bytes(4) as f64).unwrap();
    let whole = predictor.predict_plan(&plan).unwrap().latency_micros;
    assert!((shares.iter().sum::<f64>() / whole - 1.0).abs() < 1e-12, "{shares:?} {whole}");
    // Farther uses of a weight cost more.
    let larger = predictor.shares(&ops, 1e9).unwrap();
    assert!(shares.iter().zip(&larger).all(|(near, far)| near < far), "{shares:?} {larger:?}");
}

#[test]
fn missing_rows_of_several_networks_are_listed_once() {
    let known = plan(&network(8, 16, &vec![("Conv3x3", 8, 1)]));
    let other = plan(&network(8, 16, &vec![("Conv3x3", 8, 1), ("MBConv6_3x3", 8, 1)]));
    let third = plan(&network(8, 16, &vec![("MBConv6_3x3", 8, 1), ("MBConv6_3x3", 16, 1)]));
    let predictor = Predictor::new(table_of(&known, 1.0), Missing::Error);
    assert_eq!(predictor.missing([&known]), []);
    let missing = predictor.missing([&other, &known, &third]);
    let keys: Vec<String> = missing.iter().map(|op| op.key.to_string()).collect();
    assert_eq!(keys, ["MBConv6_3x3:n1-h16-w16-i8-o8-s1", "MBConv6_3x3:n1-h16-w16-i8-o16-s1"]);
    let ops: Vec<(&Op, Shape)> = [&other, &third]
        .into_iter()
        .flat_map(|plan| &plan.steps)
        .map(|step| (step.op.as_ref(), step.key.shape))
        .collect();
    assert_eq!(predictor.shares(&ops, 0.0).unwrap_err(), missing);
}
