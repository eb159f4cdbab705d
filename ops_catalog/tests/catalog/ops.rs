//! The ops that are built in.

use ops_catalog::{Layout, Op, Primitive, Shape, Variable};

use crate::{builtin, map};

/// Shapes at which a network of today would use the op.
fn typical_shapes(op: &Op) -> Vec<Shape> {
    let tokens = |l: u32, c_in: u32, c_out: u32| Shape { input_w: 1, ..map(l, c_in, c_out, 1) };
    match op.name() {
        "SelfAttention" | "SelfAttention_Dim32" => vec![map(14, 128, 128, 1), map(7, 768, 768, 1)],
        name if name.starts_with("TransformerEncoder") => {
            vec![tokens(50, 768, 768), tokens(17, 128, 128)]
        }
        "ClassTokenHead" => vec![tokens(50, 768, 1000)],
        "PatchEmbed" => vec![map(224, 3, 768, 32), map(224, 3, 192, 16)],
        "Add" | "Mul" => vec![map(28, 128, 64, 1), map(1, 2, 1, 1)],
        "Fire" => vec![map(55, 64, 128, 1), map(13, 512, 512, 1)],
        "ShuffleUnit" => vec![map(28, 116, 116, 1), map(7, 464, 464, 1)],
        "ConvNeXtBlock" => vec![map(56, 96, 96, 1), map(7, 768, 768, 1)],
        "ConvNeXtHead" => vec![map(1, 768, 1000, 1)],
        "Concat" => vec![map(28, 128, 128, 1)],
        "Linear" | "Linear_Hardswish" => vec![map(1, 1280, 1000, 1)],
        "GlobalAvgPool" => vec![map(7, 1280, 1280, 1), map(1, 8, 8, 1)],
        "Identity" | "Upsample2x" | "ReLU" | "ReLU6" | "Hardswish" | "SiLU" | "GELU"
        | "Sigmoid" => vec![map(14, 64, 64, 1)],
        "MaxPool" | "AvgPool" => vec![map(112, 32, 32, 2), map(7, 32, 32, 2), map(7, 32, 32, 1)],
        "MaxPool3x3_NoPad" => vec![map(111, 64, 64, 2), map(27, 256, 256, 2)],
        "DepthwiseConv3x3" | "DepthwiseConv5x5" | "MaxPool3x3" | "AvgPool3x3"
        | "AvgPool3x3_Inside" => {
            vec![map(112, 64, 64, 2), map(7, 960, 960, 1), map(1, 8, 8, 1)]
        }
        "BatchNorm_ReLU" => vec![map(8, 64, 64, 1)],
        "FactorizedReduce" => vec![map(32, 144, 72, 2), map(16, 72, 72, 2)],
        "ReLU_BasicBlock" => vec![map(32, 16, 32, 2), map(16, 32, 64, 2), map(8, 16, 16, 1)],
        "MBConv2p3_3x3_Hardswish" => vec![map(14, 80, 80, 1), map(14, 80, 80, 2)],
        _ => vec![map(112, 32, 32, 1), map(56, 32, 64, 2), map(7, 64, 128, 1), map(7, 80, 80, 2)],
    }
}

#[test]
fn every_op_plans_at_its_typical_shapes() {
    for op in builtin().ops() {
        for shape in typical_shapes(op) {
            let plan = op.at(&shape).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(plan.output.channels(), shape.channels_out, "{}", op.key(shape));
            assert_eq!(plan.output.dims()[0], i64::from(shape.batch));
            let weightless = plan.steps.iter().all(|step| step.primitive.is_weightless());
            assert_eq!(plan.cost.params == 0, weightless, "{}", op.key(shape));
        }
    }
}

trait Weightless {
    fn is_weightless(&self) -> bool;
}

impl Weightless for Primitive<u32> {
    fn is_weightless(&self) -> bool {
        !matches!(
            self,
            Primitive::Conv2d { .. }
                | Primitive::Conv1d { .. }
                | Primitive::ConvTranspose2d { .. }
                | Primitive::Prelu { .. }
                | Primitive::Linear { .. }
                | Primitive::BatchNorm
                | Primitive::LayerNorm
                | Primitive::GroupNorm { .. }
                | Primitive::RmsNorm
                | Primitive::ChannelAttention { .. }
                | Primitive::WindowAttention { .. }
                | Primitive::Embedding { .. }
                | Primitive::PositionEmbedding
                | Primitive::PrependTokens { .. }
                | Primitive::LayerScale
                | Primitive::LayerShift
                | Primitive::ResponseNorm
                | Primitive::SelfAttention { .. }
                | Primitive::SqueezeExcite { .. }
                | Primitive::ToTokens { .. }
        )
    }
}

#[test]
fn every_op_is_told_in_one_sentence() {
    for op in builtin().ops() {
        let doc = &op.def().doc;
        assert!(doc.ends_with('.') && !doc.contains('\n') && doc.len() < 140, "{}", op.name());
    }
}

#[test]
fn a_strided_op_divides_the_map_by_its_stride() {
    for op in builtin().ops().filter(|op| op.mentions(Variable::Stride)) {
        // A window that is not padded loses its last place.
        let other = op.name() == "PatchEmbed" || op.name().contains("NoPad");
        if op.def().input != Layout::Map || other {
            continue;
        }
        let shape = match op.mentions(Variable::COut) {
            true => map(56, 80, 120, 2),
            false => map(56, 80, 80, 2),
        };
        let plan = op.at(&shape).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(plan.output.dims()[2..], [28, 28], "{}", op.name());
    }
}

#[test]
fn inverted_residuals_have_a_shortcut_where_they_keep_their_shape() {
    let blocks = builtin().ops().filter(|op| op.name().starts_with("MBConv"));
    for op in blocks.filter(|op| op.name() != "MBConv3_3x3_NoAct") {
        let ends_in_add = |shape| {
            let plan = op.at(&shape).unwrap_or_else(|e| panic!("{e}"));
            matches!(plan.steps.last().map(|step| &step.primitive), Some(Primitive::Add))
        };
        assert!(ends_in_add(map(28, 80, 80, 1)), "{}", op.name());
        assert!(!ends_in_add(map(28, 80, 80, 2)), "{}", op.name());
        assert!(!ends_in_add(map(28, 80, 120, 1)), "{}", op.name());
    }
}

#[test]
fn aliases_name_the_same_op() {
    for (alias, name) in [("MBConv3", "MBConv3_3x3"), ("MBConv6", "MBConv6_3x3")] {
        assert_eq!(builtin().op(alias).unwrap().name(), name);
    }
}

/// What `torch.nn` counts for the same modules, so that a change of the rules is noticed.
#[test]
fn costs_are_those_of_the_same_modules_in_torch() {
    for (name, shape, params, flops) in [
        ("Conv3x3", map(224, 32, 32, 1), 9_248, 462_422_016),
        ("Conv1x1", map(224, 32, 32, 1), 1_056, 51_380_224),
        ("DepthwiseConv3x3", map(224, 32, 32, 1), 320, 14_450_688),
        // 32*96+96, 96*9+96, 96*32+32
        ("MBConv3_3x3_NoAct", map(224, 32, 32, 1), 7_232, 351_633_408),
        // nn.MultiheadAttention(128, 2): 4*128*128 + 4*128
        ("SelfAttention", map(14, 128, 128, 1), 66_048, 22_679_552),
        ("AvgPool", map(28, 128, 128, 2), 0, 0),
        // torchvision's SqueezeExcitation(96, 8) has 2*96*8 + 96 + 8 parameters.
        ("MBConv3_3x3_SE", map(1, 32, 32, 1), 7_232 + 1_640, 8_544),
        ("Linear", map(1, 1280, 1000, 1), 1_281_000, 1_280_000),
    ] {
        let cost = builtin().op(name).unwrap().at(&shape).unwrap().cost;
        assert_eq!((cost.params, cost.flops), (params, flops), "{name}");
    }
}
