use ops_catalog::Catalog;
use ops_catalog::arch_space::builtin_space;

use super::*;

/// The configuration of the NAS guide, to the letter.
const GUIDE: &str = r#"# nas_search_config_v1.yaml
search_space:
  backbone:
    type: "MobileNetV3"
    width_mult: [0.5, 0.75, 1.0]
    depth_mult: [1.0, 1.2]
  head:
    type: "FPN"
    channels: [64, 128]

constraints:
  latency:
    target_device: "pixel6_tpu"
    max_ms: 15.0
  size:
    max_params_m: 3.5

strategy:
  algorithm: "DNA (Block-Wisely)"
  supernet_epochs: 50
  finetune_epochs: 100
  population_size: 50
"#;

#[test]
fn the_example_of_the_documentation_is_the_configuration_of_the_guide() {
    let page = include_str!("../../../docs/spaces.md");
    let (_, after) = page.split_once("```yaml search_config\n").unwrap();
    let (text, _) = after.split_once("\n```").unwrap();
    assert_eq!(read(text), read(GUIDE));
}

fn read(text: &str) -> Result<SearchConfig, String> {
    SearchConfig::from_yaml(text, Catalog::builtin()).map_err(|e| e.to_string())
}

#[track_caller]
fn refused(text: &str, problem: &str) {
    let error = read(text).expect_err(text);
    assert!(error.contains(problem), "{text}\n{error}");
}

#[test]
fn the_configuration_of_the_guide_is_read() {
    let config = read(GUIDE).unwrap();
    let device = DeviceBudget {
        target_device: Some("pixel6_tpu".to_owned()),
        max_ms: Some(15.0),
        ..DeviceBudget::default()
    };
    assert_eq!(config.devices, [device]);
    assert_eq!(config.limits, Limits { max_params: Some(3_500_000), ..Limits::default() });
    assert_eq!((config.latency_bound, config.missing), (LatencyBound::Estimate, None));
    let strategy = config.strategy.unwrap();
    assert_eq!(strategy.algorithm, "DNA (Block-Wisely)");
    let epochs = (strategy.supernet_epochs, strategy.finetune_epochs, strategy.population_size);
    assert_eq!(epochs, (Some(50), Some(100), Some(50)));
    let space = config.space.unwrap();
    assert_eq!(space.source, SpaceSource::Builtin("mobilenet_v3_fpn".to_owned()));
    let def = builtin_space("mobilenet_v3_fpn").unwrap().def();
    let compiled = space.compile(&def, Catalog::builtin()).unwrap();
    // The guide's values are those of the space, so nothing is left out.
    assert_eq!(compiled.size(), def.compile(Catalog::builtin()).unwrap().size());
}

#[test]
fn a_backbone_and_a_head_restrict_the_built_in_space() {
    let text = GUIDE.replace("[0.5, 0.75, 1.0]", "[0.5]").replace("[64, 128]", "[128]");
    let text = text.replace("depth_mult: [1.0, 1.2]", "resolution: [224]\n    kernel: [3]");
    let space = read(&text).unwrap().space.unwrap();
    let def = builtin_space("mobilenet_v3_fpn").unwrap().def();
    let part = space.compile(&def, Catalog::builtin()).unwrap();
    // Two depths, and four options of each block.
    assert_eq!(part.size(), 4u128.pow(14) + 4u128.pow(19));
    let letters = part.draws(3).next().unwrap();
    let whole = def.compile(Catalog::builtin()).unwrap();
    let genotype = part.genotype(&letters);
    assert_eq!(part.decode(&genotype), whole.decode(&genotype));
}

#[test]
fn any_space_can_be_searched() {
    let space = |text: &str| read(text).unwrap().space.unwrap();
    let ofa = space(
        "search_space: {space: ofa_mobilenet_v3, choices: {resolution: [224], kernel: [3, 5]}}",
    );
    assert_eq!(ofa.source, SpaceSource::Builtin("ofa_mobilenet_v3".to_owned()));
    assert_eq!(ofa.restriction["kernel"], ["3", "5"]);
    let own = space("search_space: {space: spaces/mine.yaml, choices: {depth: [2]}}");
    assert_eq!(own.source, SpaceSource::File("spaces/mine.yaml".into()));
    // The file is read later, and its mistakes are named with the field of the configuration.
    let def: ops_catalog::arch_space::ArchSpaceDef = text::read(
        "{name: mine, version: 1, input: {n: 1, c: 8, h: 8, w: 8},
          body: [{depth: 2, op: Conv<k>x<k>, c_out: 8, choices: {k: [1, 3]}}]}",
    )
    .unwrap();
    let error = own.compile(&def, Catalog::builtin()).unwrap_err();
    assert_eq!(error.to_string(), "search_space.choices.depth: there is no such choice; it has k");
}

#[test]
fn the_configuration_of_the_pruner_is_a_part_of_it() {
    let text = "max_latency_ms: 25\nlatency_bound: upper\nmax_flops: 600e6\nmax_params: 5000000\n\
                max_layers: 50\nmax_per_op: {MBConv6: 0, Conv3x3: 3}\nmissing: interpolate\nmin_flops: 1e6\n\
                max_energy_mj: 3.5\nmax_peak_memory_mib: 64\n";
    let expected = SearchConfig {
        devices: vec![DeviceBudget {
            max_ms: Some(25.0),
            max_energy_mj: Some(3.5),
            ..DeviceBudget::default()
        }],
        limits: Limits {
            max_flops: Some(600_000_000),
            min_flops: Some(1_000_000),
            max_params: Some(5_000_000),
            max_weights_mib: None,
            max_peak_memory_mib: Some(64.0),
            max_layers: Some(50),
            max_per_op: [("Conv3x3".to_owned(), 3), ("MBConv6_3x3".to_owned(), 0)].into(),
        },
        latency_bound: LatencyBound::Upper,
        missing: Some(Missing::Interpolate),
        ..SearchConfig::default()
    };
    assert_eq!(read(text), Ok(expected));
}

#[test]
fn several_devices_have_their_tables_and_budgets() {
    let text = "
constraints:
  latency:
    - {target_device: pixel6_tpu, max_ms: 15, table: pixel6.json}
    - {target_device: tesla-t4-16gb.cuda, max_ms: 2.5, max_energy_mj: 80}
    - {target_device: board, max_energy_mj: 12.5}
  size: {max_params: 4e6, max_weights_mib: 16}
  max_flops: 600e6
  min_flops: 50e6
  max_peak_memory_mib: 48.5
  max_layers: 60
  max_per_op: {Conv5x5: 5}
latency_bound: upper
missing: error
";
    let config = read(text).unwrap();
    let names: Vec<_> = config.devices.iter().map(|one| one.target_device.as_deref()).collect();
    assert_eq!(names, [Some("pixel6_tpu"), Some("tesla-t4-16gb.cuda"), Some("board")]);
    assert_eq!(config.devices[0].table.as_deref(), Some(std::path::Path::new("pixel6.json")));
    assert_eq!(config.devices[1].max_energy_mj, Some(80.0));
    assert_eq!(config.devices[2].max_ms, None);
    assert_eq!(config.limits.max_weights_mib, Some(16.0));
    assert_eq!(config.limits.max_per_op["Conv5x5"], 5);
    assert!(config.has_constraints());
    assert!(!read("strategy: {algorithm: random}").unwrap().has_constraints());
}

#[test]
fn mistakes_in_constraints_are_named_with_their_place() {
    let at = |section: &str| format!("constraints:\n  {section}\n");
    for (section, problem) in [
        ("max_flop: 3", "line 2, column 3, constraints: there is no field `max_flop` here"),
        ("max_flops: -3", "line 2, column 14, constraints.max_flops: -3 is negative"),
        ("max_flops: 1.5", "constraints.max_flops: 1.5 is not a whole number"),
        (
            "max_flops: 1\n  min_flops: 2",
            "min_flops: is 2, and max_flops is 1: no network has both",
        ),
        ("latency: 15", "line 2, column 12, constraints.latency: is `15`; a device, written"),
        (
            "latency: {max_ms: 15}",
            "line 2, column 12, constraints.latency: `target_device` is missing",
        ),
        ("latency: {target_device: x}", "line 2, column 12, constraints.latency: has no budget"),
        (
            "latency: {target_device: x, max_ms: 0}",
            "line 2, column 39, constraints.latency.max_ms: is 0; a latency is above zero",
        ),
        (
            "latency: {target_device: x, max_ms: .inf}",
            "constraints.latency.max_ms: is inf; a latency is above zero and finite",
        ),
        (
            "latency: {target_device: x, max_ms: soon}",
            "constraints.latency.max_ms: is `soon`; a number",
        ),
        (
            "latency: {target_device: x, max_mj: 3}",
            "there is no field `max_mj` here; the fields are",
        ),
        (
            "latency: {target_device: a b, max_ms: 1}",
            "line 2, column 28, constraints.latency.target_device: `a b` is no hardware id",
        ),
        ("latency: {target_device: '', max_ms: 1}", "target_device: `` is no hardware id"),
        (
            "latency: {target_device: 7, max_ms: 1, table: ''}",
            "constraints.latency.table: is empty",
        ),
        (
            "latency: [{target_device: x, max_ms: 1}, {target_device: x, max_ms: 2}]",
            "line 2, column 60, constraints.latency[1].target_device: `x` stands twice",
        ),
        (
            "latency: [{target_device: x, max_ms: 1}, {target_device: y, max_ms: -1}]",
            "line 2, column 71, constraints.latency[1].max_ms: is -1",
        ),
        ("latency: []", "line 2, column 3, constraints: has no constraint"),
        ("size: {}", "line 2, column 3, constraints: has no constraint"),
        ("size: 3", "line 2, column 9, constraints.size: is `3`; an object"),
        (
            "size: {max_params_m: -1}",
            "constraints.size.max_params_m: is -1; a number of parameters",
        ),
        ("size: {max_params_m: 1e30}", "constraints.size.max_params_m: 1"),
        (
            "size: {max_params_m: 1, max_params: 3}",
            "constraints.size.max_params_m: stands beside `max_params`: keep one",
        ),
        (
            "size: {max_weights_mib: 0}",
            "constraints.size.max_weights_mib: is 0; a size is above zero",
        ),
        (
            "max_peak_memory_mib: 0",
            "line 2, column 24, constraints.max_peak_memory_mib: is 0; memory",
        ),
        (
            "max_per_op: {Conv3x4: 1}",
            "constraints.max_per_op, op Conv3x4: there is no such op; the closest",
        ),
        (
            "max_per_op: {MBConv6: 1, MBConv6_3x3: 2}",
            "line 2, column 15, constraints.max_per_op: has MBConv6_3x3 twice",
        ),
    ] {
        refused(&at(section), problem);
    }
    refused("constraints: {}\n", "column 14, constraints: has no constraint");
    refused(
        "constraints: {max_layers: 3}\nmax_params: 4\n",
        "line 2, column 13, max_params: stands beside `constraints`: write it there, as `size.max_params`",
    );
    refused(
        "max_flops: 1\nlatency_bound: upper\n",
        "line 2, column 16, latency_bound: says nothing",
    );
    refused(
        "max_flops: 1\nmissing: ignore\n",
        "line 2, column 10, missing: `ignore` is not known here",
    );
    refused("max_latency_ms: 0\n", "column 17, max_latency_ms: is 0; a latency is above zero");
    refused("{}", "there is no constraint: give at least one of");
    refused("max_per_op: {}", "there is no constraint: give at least one of");
    refused("max_latency: 3\n", "there is no field `max_latency` here");
}

#[test]
fn mistakes_in_the_space_are_named_with_their_place() {
    for (from, to, problem) in [
        (
            "\"MobileNetV3\"",
            "\"ResNet\"",
            "line 4, column 11, search_space.backbone.type: `ResNet` is not",
        ),
        ("\"MobileNetV3\"", "3", "search_space.backbone.type: `3` is not known here"),
        (
            "    type: \"MobileNetV3\"\n",
            "",
            "line 4, column 5, search_space.backbone: has no `type`",
        ),
        (
            "\"FPN\"",
            "\"PAN\"",
            "line 8, column 11, search_space.head.type: `PAN` is not known here; known are FPN",
        ),
        (
            "0.75",
            "0.8",
            "line 5, column 17, search_space.backbone.width_mult: `0.8` is no value of it",
        ),
        ("0.75", "0.5", "line 5, column 17, search_space.backbone.width_mult: has `0.5` twice"),
        (
            "[0.5, 0.75, 1.0]",
            "[]",
            "search_space.backbone.width_mult: is empty, so no network is left",
        ),
        (
            "[0.5, 0.75, 1.0]",
            "0.5",
            "line 5, column 17, search_space.backbone.width_mult: is `0.5`; a list",
        ),
        (
            "[0.5, 0.75, 1.0]",
            "[[1]]",
            "search_space.backbone.width_mult[0]: is a list; a number or a text",
        ),
        (
            "width_mult",
            "width",
            "line 5, column 12, search_space.backbone.width: there is no such choice; it has",
        ),
        (
            "width_mult",
            "channels",
            "search_space.backbone.channels: is no choice of a backbone; it belongs to `head`",
        ),
        (
            "    channels",
            "    width",
            "search_space.head.width: is no choice of a head; it belongs to `backbone`",
        ),
        (
            "  backbone:",
            "  body:",
            "there is no field `body` here; the fields are `backbone`, `head`",
        ),
        (
            "  head:\n    type: \"FPN\"\n    channels: [64, 128]\n",
            "",
            "search_space.head: is missing",
        ),
        (
            "  head:\n    type: \"FPN\"\n    channels: [64, 128]\n",
            "  space: darts\n",
            "search_space.space: stands beside `backbone` or `head`",
        ),
        (
            "    channels: [64, 128]\n",
            "  choices: {a: [1]}\n",
            "search_space.choices: belongs to `space`",
        ),
        ("algorithm: \"DNA (Block-Wisely)\"", "algorithm: \" \"", "strategy.algorithm: is empty"),
        ("  algorithm: \"DNA (Block-Wisely)\"\n", "", "strategy: `algorithm` is missing"),
        (
            "population_size: 50",
            "population_size: 0",
            "line 22, column 20, strategy.population_size: is 0",
        ),
        ("population_size: 50", "population: 50", "there is no field `population` here"),
        ("supernet_epochs: 50", "supernet_epochs: -1", "strategy.supernet_epochs: -1 is negative"),
    ] {
        let text = GUIDE.replacen(from, to, 1);
        assert_ne!(text, GUIDE, "{from}");
        refused(&text, problem);
    }
    refused(
        "search_space: {}\n",
        "column 15, search_space: names no space: give `backbone` and `head`",
    );
    refused(
        "search_space: {space: nothing}\n",
        "search_space.space: there is no space `nothing`; the built-in",
    );
    refused("search_space: {head: {type: FPN}}\n", "search_space.backbone: is missing");
    refused("search_space: {space: darts, choices: [kernel]}\n", "search_space.choices: is a list");
}
