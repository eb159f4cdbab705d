use std::sync::Arc;

use super::*;
use crate::TableIndex;
use crate::merge::{Observation, merge_network};
use latlas_shared::testing::{key, network_measurement, row, table};
use latlas_shared::{Missing, Origin};
use ops_catalog::{Catalog, NetworkSpec};
use proptest::prelude::*;
use serde_json::json;

/// A network of one convolution with this many output channels.
fn conv(c_out: u32) -> NetworkSpec {
    let spec = json!({"name": format!("conv-{c_out}"), "input": {"n": 1, "c": 4, "h": 8, "w": 8},
                      "layers": [{"op": "Conv3x3", "c_out": c_out, "stride": 1}]});
    NetworkSpec::from_json(&spec.to_string()).unwrap()
}

fn conv_key(c_out: u32) -> OpKey {
    key(&format!("Conv3x3:n1-h8-w8-i4-o{c_out}-s1"))
}

fn truth(spec: &NetworkSpec, micros: f64) -> MeasuredNetwork {
    let mut measurement = network_measurement("demo_conv", micros);
    let whole = latlas_shared::WholeNetwork::new(spec, Catalog::builtin()).unwrap();
    measurement.subject = latlas_shared::Subject::Network(Box::new(whole));
    merge_network(&[Observation { agent: "a".into(), measurement }]).unwrap()
}

/// A table with the rows of `conv` networks, with these microseconds at the reference distance. The networks are small,
/// so their curves are read near distance zero, at 0.8 of it.
fn index(rows: &[(u32, f64)]) -> Arc<TableIndex> {
    let rows = rows.iter().map(|&(c_out, micros)| row(&conv_key(c_out), micros)).collect();
    Arc::new(TableIndex::new(table(rows)).unwrap())
}

fn accuracy(index: &Arc<TableIndex>, networks: &[MeasuredNetwork]) -> Accuracy {
    judge(&Predictor::new(Arc::clone(index), Missing::Error), networks).0
}

fn predicted(index: &Arc<TableIndex>, spec: &NetworkSpec) -> Prediction {
    let network = ops_catalog::Network::new(spec, Catalog::builtin()).unwrap();
    Predictor::new(Arc::clone(index), Missing::Error).predict(&network).unwrap()
}

#[test]
fn the_figures_are_those_of_the_errors() {
    let index = index(&[(4, 10.0), (5, 20.0), (6, 30.0)]);
    let p = [4, 5, 6].map(|c| predicted(&index, &conv(c)).latency_micros);
    // Errors of +25%, -20% and +4%; the middle network changes ranks with the last.
    let measured = [p[0] / 1.25, p[1] / 0.8, p[2] / 1.04];
    let networks: Vec<MeasuredNetwork> =
        [4, 5, 6].iter().zip(measured).map(|(c, m)| truth(&conv(*c), m)).collect();
    let Accuracy { overall, families, networks: listed, .. } = accuracy(&index, &networks);
    let near = |value: Option<f64>, expected: f64| (value.unwrap() - expected).abs() < 1e-9;
    assert_eq!((overall.networks, overall.predicted), (3, 3));
    assert!(near(overall.mape, (0.25 + 0.2 + 0.04) / 3.0), "{overall:?}");
    assert!(near(overall.bias, (0.25 - 0.2 + 0.04) / 3.0), "{overall:?}");
    assert!(near(overall.within_5, 1.0 / 3.0) && near(overall.within_10, 1.0 / 3.0));
    let order = (measured[1] - measured[2]).signum();
    assert!(near(overall.kendall_tau, if order > 0.0 { 1.0 / 3.0 } else { 1.0 }), "{overall:?}");
    assert_eq!(families["convnet"], overall);
    let names: Vec<&str> = listed.iter().map(|n| n.name.as_str()).collect();
    assert_eq!(names, ["conv-4", "conv-5", "conv-6"], "the worst first");
}

#[test]
fn what_has_no_prediction_is_counted_and_says_why() {
    let index = index(&[(4, 10.0)]);
    let one = truth(&conv(4), 9.0);
    let mut changed = truth(&conv(4), 9.0);
    changed.network.digest = "net2-00000000000000000000000000000000".parse().unwrap();
    let accuracy = accuracy(&index, &[truth(&conv(5), 9.0), one, changed]);
    assert_eq!((accuracy.overall.networks, accuracy.overall.predicted), (3, 1));
    assert_eq!(accuracy.overall.kendall_tau, None, "one network has no order");
    let why: Vec<&str> =
        accuracy.networks.iter().filter_map(|n| n.unpredicted.as_deref()).collect();
    assert!(why[0].contains("another version of the catalog"), "{why:?}");
    assert_eq!(why[1], "a row is missing: Conv3x3:n1-h8-w8-i4-o5-s1 (not measured)");
    let nothing: &[MeasuredNetwork] = &[];
    let (none, calibration) = judge(&Predictor::new(Arc::clone(&index), Missing::Error), nothing);
    assert_eq!((none.overall.networks, none.overall.mape), (0, None));
    assert_eq!(calibration.networks, 0);
}

#[test]
fn an_error_is_traced_as_far_as_the_intervals_reach() {
    let index = index(&[(4, 10.0)]);
    let Prediction { low_micros, latency_micros, high_micros, ops, .. } =
        predicted(&index, &conv(4));
    let explained = |measured: f64| {
        let accuracy = accuracy(&index, &[truth(&conv(4), measured)]);
        let comparison = accuracy.networks[0].prediction.clone().unwrap();
        (comparison, accuracy.overall.covered)
    };
    let (inside, covered) = explained((latency_micros + high_micros) / 2.0);
    assert_eq!((inside.unattributed_micros, covered), (0.0, Some(1.0)));
    let carrier = &inside.carriers[0];
    assert_eq!((&carrier.key, carrier.count, carrier.origin), (&conv_key(4), 1, Origin::Measured));
    assert!((carrier.share - 1.0).abs() < 1e-9);
    assert!((carrier.reach_micros - (ops[0].high_micros - ops[0].latency_micros)).abs() < 1e-9);
    let (above, covered) = explained(high_micros + 5.0);
    assert!((above.unattributed_micros - 5.0).abs() < 1e-9);
    assert_eq!(covered, Some(0.0));
    let (below, _) = explained(low_micros - 2.0);
    assert!((below.unattributed_micros + 2.0).abs() < 1e-9);
    assert!(
        (below.carriers[0].reach_micros - (ops[0].latency_micros - ops[0].low_micros)).abs() < 1e-9
    );
}

#[test]
fn an_accuracy_is_read_back_as_it_was_written() {
    let index = index(&[(4, 10.0)]);
    let accuracy = accuracy(&index, &[truth(&conv(4), 9.0), truth(&conv(5), 9.0)]);
    let text = serde_json::to_string_pretty(&accuracy).unwrap();
    assert_eq!(serde_json::from_str::<Accuracy>(&text).unwrap(), accuracy);
    insta::assert_snapshot!(text);
}

proptest! {
    /// A different unit of time, or a different order of networks, does not change the accuracy.
    #[test]
    fn order_and_scale_do_not_matter(
        times in prop::collection::vec((1.0f64..1e3, 1.0f64..1e3), 1..8), scale in 0.01f64..100.0,
    ) {
        let of = |scale: f64, reversed: bool| {
            let rows: Vec<(u32, f64)> =
                (1..).zip(&times).map(|(c, (row, _))| (c, row * scale)).collect();
            let mut networks: Vec<MeasuredNetwork> =
                (1..).zip(&times).map(|(c, (_, m))| truth(&conv(c), m * scale)).collect();
            if reversed {
                networks.reverse();
            }
            accuracy(&index(&rows), &networks).overall
        };
        let (one, other) = (of(1.0, false), of(scale, true));
        let close = |a: Option<f64>, b: Option<f64>| match (a, b) {
            (Some(a), Some(b)) => (a - b).abs() < 1e-9,
            (a, b) => a == b,
        };
        prop_assert!(close(one.mape, other.mape) && close(one.bias, other.bias));
        prop_assert!(close(one.kendall_tau, other.kendall_tau));
        prop_assert!(one.bias.unwrap().abs() <= one.mape.unwrap() + 1e-12);
        prop_assert!(one.within_5 <= one.within_10);
    }
}

#[test]
fn a_calibration_is_judged_by_networks_that_it_was_not_fitted_on() {
    let sizes: Vec<u32> = (4..30).collect();
    let rows: Vec<(u32, f64)> = sizes.iter().map(|&c| (c, 100.0 * f64::from(c))).collect();
    let index = index(&rows);
    // The device takes 8% more than the sum of its rows.
    let networks: Vec<MeasuredNetwork> = sizes
        .iter()
        .map(|&c| truth(&conv(c), 1.08 * predicted(&index, &conv(c)).latency_micros))
        .collect();
    let (accuracy, calibration) =
        judge(&Predictor::new(Arc::clone(&index), Missing::Error), &networks);
    assert!((accuracy.overall.bias.unwrap() + 0.08 / 1.08).abs() < 1e-9);
    let [few, many] = &accuracy.calibrated[..] else { panic!("{:?}", accuracy.calibrated) };
    assert_eq!((few.fitted_on, few.summary.networks), (5, 21));
    assert_eq!((many.fitted_on, many.summary.networks), (20, 6));
    let mape = |c: &Calibrated| c.summary.mape.unwrap();
    assert!(mape(few) < 0.03 && mape(many) < mape(few), "{accuracy:?}");
    assert_eq!(calibration.networks, 26);
    // Six networks are too few to fit on five and evaluate with five.
    let (few, _) = judge(&Predictor::new(Arc::clone(&index), Missing::Error), &networks[..6]);
    assert!(few.calibrated.is_empty());
}

#[test]
fn families_are_told_by_their_ops() {
    let of = |name: &str| {
        family(&Catalog::builtin().network(name).unwrap().plan(Catalog::builtin()).unwrap())
    };
    assert_eq!(of("mobilenet_v2"), "mobilenet");
    assert_eq!(of("resnet18"), "convnet");
    assert_eq!(of("vit_b_32"), "transformer");
}
