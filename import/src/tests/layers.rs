//! Norms, numbers and factors that a model has as arithmetic.

use super::*;

/// Older versions of ONNX have no group norm.
#[test]
fn a_norm_of_instances_with_factors_for_channels_is_a_group_norm() {
    let mut model = Model::default();
    let x = model.input(&[1, 8, 4, 4]);
    let grouped = model.reshape(x, &[1, 2, 64]);
    let [ones, zeros] = [1.0, 0.0].map(|number| {
        let id = model.weight("", &[2]);
        model.graph.values[id].numbers = Some([number; 2].into());
        id
    });
    let norm = Operation::GroupNorm { groups: 2, epsilon: 1e-5 };
    let normed = model.add(norm, &[grouped, ones, zeros], &[1, 2, 64]);
    let map = model.reshape(normed, &[1, 8, 4, 4]);
    let (scale, shift) = (model.weight("scale", &[8, 1, 1]), model.weight("shift", &[8, 1, 1]));
    let scaled = model.binary(Binary::Mul, map, scale);
    let output = model.binary(Binary::Add, scaled, shift);
    let (plan, network) = model.plan(output);
    assert!(own_ops(&network).contains(r#"{"group_norm":{"groups":2}}"#));
    assert_eq!(plan.cost.params, 16);
}

#[test]
fn one_number_is_no_parameter() {
    let mut model = Model::default();
    let x = model.input(&[1, 8, 4, 4]);
    let x = model.conv("a", x, 8, [1, 1], 1, 1);
    let half = model.number(2.0);
    let output = model.binary(Binary::Div, x, half);
    let imported = model.import(output).unwrap();
    let factor = imported.weights.iter().find(|(name, _)| name.ends_with(".factor"));
    assert_eq!(factor.map(|(_, given)| given), Some(&Given::Constant(0.5, vec![1])));
    let network = Network::new(&imported.network, Catalog::builtin()).unwrap();
    assert_eq!(network.plan(Catalog::builtin()).unwrap().cost.params, 8 * 8 + 8);
}

/// A model that prepares its picture: numbers of each channel are subtracted and divided by.
#[test]
fn arithmetic_with_constants_is_affine_layers() {
    let mut model = Model::default();
    let x = model.input(&[1, 3, 8, 8]);
    let (mean, deviation) = (model.weight("mean", &[3, 1, 1]), model.weight("std", &[1, 3, 1, 1]));
    let centred = model.binary(Binary::Sub, x, mean);
    let scaled = model.binary(Binary::Div, centred, deviation);
    let one = model.number(1.0);
    let turned = model.binary(Binary::Sub, one, scaled);
    let added = model.number(3.0);
    let output = model.binary(Binary::Add, turned, added);
    let imported = model.import(output).unwrap();
    assert!(imported.weights.values().all(Given::is_known), "{:?}", imported.weights);
    let network = Network::new(&imported.network, Catalog::builtin()).unwrap();
    let plan = network.plan(Catalog::builtin()).unwrap();
    let steps: Vec<&str> = plan
        .steps
        .iter()
        .flat_map(|step| &step.plan.steps)
        .map(|step| step.primitive.name())
        .collect();
    assert_eq!(steps, ["layer_shift", "layer_scale", "scale", "shift", "shift"]);
    assert_eq!(plan.cost.params, 6);
}

/// ConvNeXt V2.
#[test]
fn a_response_norm_is_found() {
    for last in [false, true] {
        let mut model = Model::default();
        let mut x = model.input(&[1, 8, 4, 4]);
        let mut weights = [8, 1, 1];
        let (mut positions, mut channels) = (vec![2, 3], 1);
        if last {
            x = model.permute(x, &[0, 2, 3, 1]);
            weights = [1, 1, 8];
            (positions, channels) = (vec![1, 2], 3);
        }
        let whole = model.dims(x);
        let mut of_channels = whole.clone();
        positions.iter().for_each(|&axis| of_channels[axis] = 1);
        let squares = model.binary(Binary::Mul, x, x);
        let sum = Operation::Reduce { reduction: Reduction::Sum, axes: positions, keep: true };
        let sum = model.add(sum, &[squares], &of_channels);
        let lengths = model.apply(Function::Sqrt, sum);
        let mean =
            Operation::Reduce { reduction: Reduction::Mean, axes: vec![channels], keep: true };
        let mean = model.add(mean, &[lengths], &[1, 1, 1, 1]);
        let tiny = model.number(1e-6);
        let mean = model.binary(Binary::Add, mean, tiny);
        let shares = model.add(Operation::Binary(Binary::Div), &[lengths, mean], &of_channels);
        let product = model.add(Operation::Binary(Binary::Mul), &[x, shares], &whole);
        let (scale, shift) = (model.weight("scale", &weights), model.weight("shift", &weights));
        let scaled = model.binary(Binary::Mul, product, scale);
        let shifted = model.binary(Binary::Add, shift, scaled);
        let output = model.binary(Binary::Add, x, shifted);
        let (plan, network) = model.plan(output);
        assert!(own_ops(&network).contains(r#""response_norm""#), "{}", own_ops(&network));
        assert_eq!(plan.cost.params, 16);
    }
}

/// PVT: keys of a sequence, from a map whose stride is more than the width of a sequence.
#[test]
fn a_stride_inside_a_block_of_tokens_is_none_of_its_op() {
    let mut model = Model::default();
    let x = model.input(&[1, 8, 8, 8]);
    let flat = model.reshape(x, &[1, 8, 64]);
    let tokens = model.permute(flat, &[0, 2, 1]);
    let tokens = model.linear("first", tokens, 8);
    let back = model.permute(tokens, &[0, 2, 1]);
    let map = model.reshape(back, &[1, 8, 8, 8]);
    let coarse = model.conv("reduce", map, 8, [1, 1], 4, 1);
    let coarse = model.reshape(coarse, &[1, 8, 4]);
    let keys = model.permute(coarse, &[0, 2, 1]);
    let heads = [tokens, keys, keys].map(|part| {
        let length = model.dims(part)[1];
        let split = model.reshape(part, &[1, length, 2, 4]);
        model.permute(split, &[0, 2, 1, 3])
    });
    let attention = Operation::Attention { causal: false, scale: None, cosine: false };
    let mixed = model.add(attention, &heads, &[1, 2, 64, 4]);
    let mixed = model.permute(mixed, &[0, 2, 1, 3]);
    let mixed = model.reshape(mixed, &[1, 64, 8]);
    let output = model.binary(Binary::Add, tokens, mixed);
    let (plan, network) = model.plan(output);
    assert!(own_ops(&network).contains(r#""stride":4"#), "{}", own_ops(&network));
    assert_eq!(plan.output.dims(), [1, 64, 8]);
}
