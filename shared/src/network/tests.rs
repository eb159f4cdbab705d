use super::*;
use serde_json::json;

fn spec(value: serde_json::Value) -> NetworkSpec {
    NetworkSpec::from_json(&value.to_string()).unwrap()
}

fn sequence(name: &str, c_out: u32) -> NetworkSpec {
    spec(json!({
        "name": name, "doc": "prose", "id": 7, "input": {"n": 1, "c": 3, "h": 16, "w": 16},
        "layers": [{"op": "Conv3x3", "c_out": c_out, "stride": 1},
                   {"op": "MaxPool", "c_out": c_out, "stride": 2}],
    }))
}

fn whole(spec: &NetworkSpec) -> WholeNetwork {
    WholeNetwork::new(spec, Catalog::builtin()).unwrap()
}

#[test]
fn a_digest_is_about_what_is_computed() {
    let one = whole(&sequence("one", 8));
    let graph = spec(json!({
        "input": {"n": 1, "c": 3, "h": 16, "w": 16}, "output": 0,
        "nodes": [{"op": "MaxPool", "c_out": 8, "stride": 2, "inputs": [1]},
                  {"op": "Conv3x3", "c_out": 8, "stride": 1, "inputs": [-1]}],
    }));
    assert_eq!(one.digest, whole(&graph).digest, "names and form are no part of it");
    assert_ne!(one.digest, whole(&sequence("one", 9)).digest);
    assert_eq!((one.spec.doc.as_ref(), one.spec.id.as_ref(), one.name()), (None, None, "one"));
    assert_eq!(whole(&graph).name(), &one.digest.as_str()[..17]);
}

#[test]
fn ops_of_its_own_come_along() {
    let def: OpDef = serde_json::from_value(
        json!({"name": "TwoRelus", "nodes": [{"apply": "relu"}, {"apply": "relu"}]}),
    )
    .unwrap();
    let catalog = Catalog::builtin().with_ops([def.clone()]).unwrap();
    let mut own = sequence("own", 8);
    own.layers = spec(json!({"layers": [
        {"op": "Conv3x3", "c_out": 8, "stride": 1}, {"op": "TwoRelus", "c_out": 8, "stride": 1}]}))
    .layers;
    let network = WholeNetwork::new(&own, &catalog).unwrap();
    assert_eq!(network.ops, [def]);
    let text = serde_json::to_string(&network).unwrap();
    let read: WholeNetwork = serde_json::from_str(&text).unwrap();
    assert_eq!(read, network);
    assert_eq!(read.plan().unwrap().steps.len(), 2);
}

#[test]
fn a_definition_that_is_not_its_digest_s_is_refused() {
    let mut network = whole(&sequence("one", 8));
    network.spec = sequence("one", 9);
    let error = network.plan().unwrap_err().to_string();
    assert!(error.contains("another version of the catalog"), "{error}");
}

#[test]
fn names_and_sizes_are_bounded() {
    for name in ["", "two\nlines", &"x".repeat(201)] {
        let error = WholeNetwork::new(&sequence(name, 8), Catalog::builtin()).unwrap_err();
        assert!(error.to_string().contains("1 to 200 bytes"), "{error}");
    }
    let layer = json!({"op": "Conv3x3", "c_out": 8, "stride": 1});
    let input = json!({"n": 1, "c": 8, "h": 8, "w": 8});
    let long = spec(json!({"name": "long", "input": input, "layers": vec![layer; 2000]}));
    let error = WholeNetwork::new(&long, Catalog::builtin()).unwrap_err().to_string();
    assert!(error.contains("at most 65536"), "{error}");
}

#[test]
fn a_sustained_run_is_another_network_with_the_same_definition() {
    let usual = whole(&sequence("one", 8));
    let sustained = usual.clone().sustained(600).unwrap();
    assert_eq!((sustained.to_string(), sustained.name()), ("one, sustained".to_owned(), "one"));
    assert_eq!((usual.to_string(), &usual.spec), ("one".to_owned(), &sustained.spec));
    assert_eq!(usual.plan().unwrap().steps.len(), sustained.plan().unwrap().steps.len());
    let other = usual.clone().sustained(20).unwrap();
    assert!(usual.digest != sustained.digest && other.digest != sustained.digest);
    let text = serde_json::to_value(&sustained).unwrap();
    assert_eq!(text["sustained_seconds"], 600);
    assert_eq!(serde_json::from_value::<WholeNetwork>(text).unwrap(), sustained);
    assert!(serde_json::to_value(&usual).unwrap().get("sustained_seconds").is_none());
    let forged = WholeNetwork { sustained_seconds: Some(600), ..usual };
    assert!(forged.plan().is_err(), "the digest covers it");
}

/// Networks that were measured by earlier versions keep their digests.
#[test]
fn the_digest_of_a_usual_network_stays_as_it_was() {
    let network = whole(&sequence("one", 8));
    let plan = network.plan().unwrap();
    let bytes = Sha256::digest(plan.canonical());
    assert_eq!(network.digest.as_str(), digest::write(PREFIX, &bytes));
}

#[test]
fn a_sustained_run_is_bounded() {
    for seconds in [0, 3601] {
        let error = whole(&sequence("one", 8)).sustained(seconds).unwrap_err().to_string();
        assert!(error.contains("1 to 3600 seconds"), "{error}");
    }
}
