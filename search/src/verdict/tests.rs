use super::*;
use ops_catalog::{Catalog, Network, NetworkSpec};
use proptest::prelude::*;
use serde_json::json;

fn plan(layers: &[(&str, u32)]) -> NetworkPlan {
    let layers: Vec<_> =
        layers.iter().map(|(op, c_out)| json!({"op": op, "c_out": c_out, "stride": 1})).collect();
    let input = json!({"n": 1, "c": 8, "h": 16, "w": 16});
    let text = json!({"input": input, "layers": layers}).to_string();
    let catalog = Catalog::builtin();
    Network::new(&NetworkSpec::from_json(&text).unwrap(), catalog).unwrap().plan(catalog).unwrap()
}

fn latency(micros: f64) -> Micros {
    Micros { low: micros * 0.9, latency: micros, high: micros * 1.25 }
}

fn missing(plan: &NetworkPlan) -> Result<Micros, Vec<OpKey>> {
    Err(vec![plan.steps[0].key.clone()])
}

/// The verdict; its codes must say the same.
fn judged(
    constraints: &Constraints,
    plan: &NetworkPlan,
    found: Result<Micros, Vec<OpKey>>,
) -> Verdict {
    let quantities = Quantities::of(plan, constraints);
    let codes = codes(constraints, &quantities, found.as_ref().ok());
    let verdict = judge(constraints, &quantities, found);
    assert_eq!(codes.decision(), verdict.decision);
    let named: Vec<&str> = Codes::NAMES
        .iter()
        .filter(|(code, _)| codes.contains(*code))
        .map(|(_, name)| *name)
        .collect();
    let mut reasons: Vec<&str> = verdict
        .reasons
        .iter()
        .map(|reason| match reason {
            Reason::Broken(broken) => broken.constraint,
            Reason::Missing { .. } => "missing",
            Reason::Invalid { .. } => "invalid",
        })
        .collect();
    reasons.dedup();
    assert_eq!(named, reasons);
    verdict
}

fn none() -> Constraints {
    Constraints::default()
}

/// The decision, and its reasons as JSON.
fn check(constraints: Constraints, found: Result<Micros, Vec<OpKey>>) -> String {
    let plan = plan(&[("Conv3x3", 8), ("Conv3x3", 8), ("MBConv6_3x3", 8)]);
    let verdict = judged(&constraints, &plan, found);
    let text = serde_json::to_string(&(verdict.decision, verdict.reasons)).unwrap();
    text[1..text.len() - 1].replacen(',', " ", 1)
}

#[test]
fn each_constraint_gives_its_reason() {
    let plan = plan(&[("Conv3x3", 8), ("Conv3x3", 8), ("MBConv6_3x3", 8)]);
    let (flops, params) = (plan.cost.flops, plan.cost.params);
    let at = |limit: f64, latency_bound| Constraints {
        max_latency_ms: Some(limit),
        latency_bound,
        ..none()
    };
    let (estimate, upper) = (LatencyBound::Estimate, LatencyBound::Upper);
    let per_op =
        |op: &str, limit| Constraints { max_per_op: [(op.to_owned(), limit)].into(), ..none() };
    let cases = [
        (Constraints { max_layers: Some(3), ..none() }, r#""accepted" []"#.to_owned()),
        (
            Constraints { max_layers: Some(2), ..none() },
            r#""rejected" [{"constraint":"max_layers","value":3,"limit":2}]"#.to_owned(),
        ),
        (Constraints { max_flops: Some(flops), ..none() }, r#""accepted" []"#.to_owned()),
        (
            Constraints { max_flops: Some(flops - 1), ..none() },
            format!(
                r#""rejected" [{{"constraint":"max_flops","value":{flops},"limit":{}}}]"#,
                flops - 1
            ),
        ),
        (
            Constraints { max_params: Some(1), ..none() },
            format!(r#""rejected" [{{"constraint":"max_params","value":{params},"limit":1}}]"#),
        ),
        (per_op("Conv3x3", 2), r#""accepted" []"#.to_owned()),
        (per_op("Conv5x5", 0), r#""accepted" []"#.to_owned()),
        (
            per_op("Conv3x3", 1),
            r#""rejected" [{"constraint":"max_per_op","op":"Conv3x3","value":2,"limit":1}]"#
                .to_owned(),
        ),
        (at(2.0, estimate), r#""accepted" []"#.to_owned()),
        (
            at(1.9, estimate),
            r#""rejected" [{"constraint":"max_latency_ms","value":2.0,"limit":1.9}]"#.to_owned(),
        ),
        (at(2.5, upper), r#""accepted" []"#.to_owned()),
        (
            at(2.4, upper),
            r#""rejected" [{"constraint":"max_latency_ms","value":2.5,"limit":2.4}]"#.to_owned(),
        ),
    ];
    for (constraints, expected) in cases {
        assert_eq!(check(constraints.clone(), Ok(latency(2000.0))), expected, "{constraints:?}");
    }
}

#[test]
fn missing_rows_make_unknown_what_nothing_rejects() {
    let plan = plan(&[("Conv3x3", 8)]);
    let gone = missing(&plan);
    let unknown = r#""unknown" [{"missing":["Conv3x3:n1-h16-w16-i8-o8-s1"]}]"#;
    let latency = Constraints { max_latency_ms: Some(1e9), ..none() };
    assert_eq!(check(latency, gone.clone()), unknown);
    assert_eq!(check(Constraints { max_layers: Some(3), ..none() }, gone.clone()), unknown);
    assert_eq!(
        check(Constraints { max_layers: Some(1), ..none() }, gone.clone()),
        r#""rejected" [{"constraint":"max_layers","value":3,"limit":1}]"#
    );
}

#[test]
fn merges_that_the_wiring_implies_are_not_layers() {
    let text = r#"{"input": {"n": 1, "c": 8, "h": 8, "w": 8}, "output": 1, "nodes": [
        {"op": "Conv3x3", "c_out": 8, "stride": 1, "inputs": [-1]},
        {"op": "Conv3x3", "c_out": 8, "stride": 1, "inputs": [0, -1]}]}"#;
    let catalog = Catalog::builtin();
    let network = Network::new(&NetworkSpec::from_json(text).unwrap(), catalog).unwrap();
    let plan = network.plan(catalog).unwrap();
    assert_eq!(plan.steps.len(), 3);
    let limits =
        Constraints { max_layers: Some(2), max_per_op: [("Add".to_owned(), 0)].into(), ..none() };
    let verdict = judged(&limits, &plan, Ok(latency(1.0)));
    assert_eq!(verdict.decision, Decision::Accepted);
}

#[test]
fn a_latency_that_is_no_number_is_not_accepted() {
    let plan = plan(&[("Conv3x3", 8)]);
    let limits = Constraints { max_latency_ms: Some(1.0), ..none() };
    let verdict = judged(&limits, &plan, Ok(latency(f64::NAN)));
    assert_eq!(verdict.decision, Decision::Rejected);
}

fn plans() -> impl Strategy<Value = NetworkPlan> {
    let op = prop::sample::select(vec!["Conv3x3", "MBConv6_3x3", "Conv1x1"]);
    let layer = (op, prop::sample::select(vec![8, 16, 32]));
    prop::collection::vec(layer, 1..6).prop_map(|layers| plan(&layers))
}

/// Limits near the values of such networks.
fn constraints() -> impl Strategy<Value = Constraints> {
    let per_op = prop::collection::btree_map(
        prop::sample::select(vec!["Conv3x3".to_owned(), "Conv1x1".to_owned()]),
        0u64..4,
        0..2,
    );
    (
        prop::option::of(0.5f64..4.0),
        any::<bool>(),
        prop::option::of(1_000u64..3_000_000),
        prop::option::of(100u64..40_000),
        prop::option::of(0u64..6),
        per_op,
    )
        .prop_map(|(max_latency_ms, upper, max_flops, max_params, max_layers, max_per_op)| {
            Constraints {
                max_latency_ms,
                latency_bound: if upper { LatencyBound::Upper } else { LatencyBound::Estimate },
                max_flops,
                max_params,
                max_layers,
                max_per_op,
            }
        })
}

/// One limit raised or removed.
fn loosened(constraints: &Constraints, which: u8, by: u64) -> Constraints {
    let mut loose = constraints.clone();
    let raise = |limit: &mut Option<u64>| *limit = limit.filter(|_| by > 0).map(|l| l + by);
    match which {
        0 => loose.max_latency_ms = loose.max_latency_ms.map(|l| l + by as f64 / 10.0),
        1 => loose.max_latency_ms = None,
        2 => loose.latency_bound = LatencyBound::Estimate,
        3 => raise(&mut loose.max_flops),
        4 => raise(&mut loose.max_params),
        5 => raise(&mut loose.max_layers),
        6 => loose.max_per_op.values_mut().for_each(|limit| *limit += by),
        _ => loose.max_per_op.clear(),
    }
    loose
}

proptest! {
    #[test]
    fn loosening_a_constraint_never_rejects(
        plan in plans(),
        constraints in constraints(),
        micros in 100.0f64..5000.0,
        rows_missing in any::<bool>(),
        which in 0u8..8,
        by in 0u64..1_000_000,
    ) {
        let found = if rows_missing { missing(&plan) } else { Ok(latency(micros)) };
        let before = judged(&constraints, &plan, found.clone());
        let after = judged(&loosened(&constraints, which, by), &plan, found);
        prop_assert!(after.decision <= before.decision || before.decision == Decision::Rejected);
        prop_assert!(after.reasons.len() <= before.reasons.len().max(1));
    }

    #[test]
    fn missing_rows_are_never_accepted(plan in plans(), constraints in constraints()) {
        let verdict = judged(&constraints, &plan, missing(&plan));
        prop_assert!(matches!(verdict.decision, Decision::Unknown | Decision::Rejected));
        prop_assert!(!verdict.reasons.is_empty());
    }

    /// A row that is added turns unknown into accepted or rejected, and changes no other decision.
    #[test]
    fn what_is_rejected_without_rows_stays_rejected(
        plan in plans(),
        constraints in constraints(),
        micros in 100.0f64..5000.0,
    ) {
        let without = judged(&constraints, &plan, missing(&plan));
        let with = judged(&constraints, &plan, Ok(latency(micros)));
        prop_assert!(matches!(with.decision, Decision::Accepted | Decision::Rejected));
        if without.decision == Decision::Rejected {
            prop_assert_eq!(with.decision, Decision::Rejected);
            prop_assert_eq!(&with.reasons[..without.reasons.len()], &without.reasons[..]);
        }
        prop_assert_eq!(with.decision == Decision::Accepted, with.reasons.is_empty());
    }

    #[test]
    fn a_faster_network_is_not_worse(
        plan in plans(),
        constraints in constraints(),
        micros in 100.0f64..5000.0,
        share in 0.1f64..1.0,
    ) {
        let slow = judged(&constraints, &plan, Ok(latency(micros)));
        let fast = judged(&constraints, &plan, Ok(latency(micros * share)));
        prop_assert!(fast.decision <= slow.decision);
    }
}
