//! Attention, as models write it, and layers that mix positions.

use super::*;

impl Model {
    /// `torch.nn.functional.normalize` over the last dimension.
    fn normalize(&mut self, x: ValueId) -> ValueId {
        let dims = self.dims(x);
        let last = dims.len() - 1;
        let one = [&dims[..last], &[1]].concat();
        let squares = self.binary(Binary::Mul, x, x);
        let reduce = Operation::Reduce { reduction: Reduction::Sum, axes: vec![last], keep: true };
        let sum = self.add(reduce, &[squares], &one);
        let length = self.apply(Function::Sqrt, sum);
        let length = self.apply(Function::Clip { min: 1e-12, max: f64::INFINITY }, length);
        let length = self.add(Operation::Expand, &[length], &dims);
        self.add(Operation::Binary(Binary::Div), &[x, length], &dims)
    }

    /// Attention by cosines of `[batch, heads, length, size]`, as models write it out.
    fn cosine_attention(&mut self, [q, k, v]: [ValueId; 3], bias: Option<ValueId>) -> ValueId {
        let [batch, heads, length, _] = self.dims(q)[..] else { panic!("four dimensions") };
        let (q, k) = (self.normalize(q), self.normalize(k));
        let k = self.permute(k, &[0, 1, 3, 2]);
        let dims = [batch, heads, length, length];
        let scores = self.add(Operation::MatMul, &[q, k], &dims);
        let factors = self.weight("logit_scale", &[heads, 1, 1]);
        let mut scores = self.binary(Binary::Mul, scores, factors);
        if let Some(bias) = bias {
            scores = self.binary(Binary::Add, bias, scores);
        }
        let shares = self.add(Operation::Softmax { axis: 3 }, &[scores], &dims);
        let dims = self.dims(v);
        self.add(Operation::MatMul, &[shares, v], &dims)
    }
}

#[test]
fn a_layer_of_a_transformer_is_one_block() {
    let mut model = Model::default();
    let x = model.input(&[1, 3, 32, 32]);
    let patches = model.conv("patches", x, 128, [1, 1], 8, 1);
    let flat = model.reshape(patches, &[1, 128, 16]);
    let tokens = model.permute(flat, &[0, 2, 1]);
    let norm = |model: &mut Model, x: ValueId| {
        let parts = ["weight", "bias"].map(|part| model.weight(part, &[128]));
        let dims = model.dims(x);
        let norm = Operation::LayerNorm { dimensions: 1, epsilon: 1e-6 };
        model.add(norm, &[x, parts[0], parts[1]], &dims)
    };
    let normed = norm(&mut model, tokens);
    let qkv = model.linear("qkv", normed, 384);
    let split = model.reshape(qkv, &[1, 16, 3, 2, 64]);
    let split = model.permute(split, &[2, 0, 3, 1, 4]);
    let parts = [0, 1, 2].map(|part| {
        let part = model.slice(split, 0, part, 1);
        model.reshape(part, &[1, 2, 16, 64])
    });
    // As files without attention have it: scores, softmax, sum.
    let keys_first = model.permute(parts[1], &[0, 1, 3, 2]);
    let scores = model.add(Operation::MatMul, &[parts[0], keys_first], &[1, 2, 16, 16]);
    let eighth = model.number(0.125);
    let scores = model.binary(Binary::Mul, scores, eighth);
    let weights = model.add(Operation::Softmax { axis: 3 }, &[scores], &[1, 2, 16, 16]);
    let mixed = model.add(Operation::MatMul, &[weights, parts[2]], &[1, 2, 16, 64]);
    let mixed = model.permute(mixed, &[0, 2, 1, 3]);
    let mixed = model.reshape(mixed, &[1, 16, 128]);
    let attended = model.linear("out", mixed, 128);
    let sum = model.binary(Binary::Add, tokens, attended);
    let normed = norm(&mut model, sum);
    let wide = model.linear("mlp.0", normed, 512);
    // GELU by its error function.
    let root = model.number(std::f64::consts::SQRT_2);
    let curve = model.binary(Binary::Div, wide, root);
    let curve = model.apply(Function::Erf, curve);
    let one = model.number(1.0);
    let curve = model.binary(Binary::Add, curve, one);
    let product = model.binary(Binary::Mul, wide, curve);
    let half = model.number(0.5);
    let wide = model.binary(Binary::Mul, product, half);
    let narrow = model.linear("mlp.3", wide, 128);
    let output = model.binary(Binary::Add, sum, narrow);
    let (plan, _) = model.plan(output);
    let keys = keys(&plan);
    // The patches, the map as tokens, and the layer.
    assert_eq!(keys.last().unwrap(), "TransformerEncoder:n1-h16-w1-i128-o128-s1", "{keys:?}");
    assert_eq!(keys.len(), 3, "{keys:?}");
}

#[test]
fn windows_that_are_rolled_are_found() {
    let mut model = Model::default();
    let x = model.input(&[1, 64, 8, 8]);
    let x = model.permute(x, &[0, 2, 3, 1]);
    let rolled =
        model.add(Operation::Roll { shifts: vec![(1, -2), (2, -2)] }, &[x], &[1, 8, 8, 64]);
    let windows = model.reshape(rolled, &[1, 2, 4, 2, 4, 64]);
    let windows = model.permute(windows, &[0, 1, 3, 2, 4, 5]);
    let windows = model.reshape(windows, &[4, 16, 64]);
    let qkv = model.linear("qkv", windows, 192);
    let split = model.reshape(qkv, &[4, 16, 3, 2, 32]);
    let split = model.permute(split, &[2, 0, 3, 1, 4]);
    let parts = [0, 1, 2].map(|part| {
        let part = model.slice(split, 0, part, 1);
        model.reshape(part, &[4, 2, 16, 32])
    });
    let bias = model.weight("bias", &[1, 2, 16, 16]);
    let mask = model.weight("mask", &[4, 1, 16, 16]);
    let attention = Operation::Attention { causal: false, scale: None, cosine: false };
    let inputs = [parts[0], parts[1], parts[2], bias, mask];
    let mixed = model.add(attention, &inputs, &[4, 2, 16, 32]);
    let mixed = model.permute(mixed, &[0, 2, 1, 3]);
    let mixed = model.reshape(mixed, &[4, 16, 64]);
    let out = model.linear("out", mixed, 64);
    let map = model.reshape(out, &[1, 2, 2, 4, 4, 64]);
    let map = model.permute(map, &[0, 1, 3, 2, 4, 5]);
    let map = model.reshape(map, &[1, 8, 8, 64]);
    let back = model.add(Operation::Roll { shifts: vec![(1, 2), (2, 2)] }, &[map], &[1, 8, 8, 64]);
    let output = model.binary(Binary::Add, x, back);
    let (_, network) = model.plan(output);
    let ops = network.ops.unwrap();
    let [op] = &ops[..] else { panic!("{ops:?}") };
    let text = serde_json::to_string(&op.nodes[0].apply).unwrap();
    assert_eq!(text, r#"{"window_attention":{"heads":"c_in/32","window":4,"shift":2}}"#);
    assert_eq!(op.nodes.len(), 2);
}

/// Swin V2: a window of 4 on a map of 3 rows and columns, which is padded and cut again.
#[test]
fn attention_by_cosines_in_one_padded_window_is_found() {
    let mut model = Model::default();
    let x = model.input(&[1, 64, 3, 3]);
    let x = model.permute(x, &[0, 2, 3, 1]);
    let pad = Operation::Pad { before: vec![0; 4], after: vec![0, 1, 1, 0] };
    let padded = model.add(pad, &[x], &[1, 4, 4, 64]);
    let tokens = model.reshape(padded, &[1, 16, 64]);
    let qkv = model.linear("qkv", tokens, 192);
    let split = model.reshape(qkv, &[1, 16, 3, 2, 32]);
    let split = model.permute(split, &[2, 0, 3, 1, 4]);
    let parts = [0, 1, 2].map(|part| {
        let part = model.slice(split, 0, part, 1);
        model.reshape(part, &[1, 2, 16, 32])
    });
    let bias = model.weight("bias", &[1, 2, 16, 16]);
    let mixed = model.cosine_attention(parts, Some(bias));
    let mixed = model.permute(mixed, &[0, 2, 1, 3]);
    let mixed = model.reshape(mixed, &[1, 16, 64]);
    let out = model.linear("out", mixed, 64);
    let map = model.reshape(out, &[1, 4, 4, 64]);
    let map = model.slice(map, 1, 0, 3);
    let map = model.slice(map, 2, 0, 3);
    let output = model.binary(Binary::Add, x, map);
    let (plan, network) = model.plan(output);
    let text = own_ops(&network);
    let wanted = r#"{"window_attention":{"heads":"c_in/32","window":4,"cosine":true}}"#;
    assert!(text.contains(wanted), "{text}");
    assert_eq!(plan.output.dims(), [1, 64, 3, 3]);
}

/// EdgeNeXt: channels attend to channels, by sums over the positions.
#[test]
fn attention_of_channels_is_found() {
    let mut model = Model::default();
    let x = model.input(&[1, 32, 4, 4]);
    let flat = model.reshape(x, &[1, 32, 16]);
    let tokens = model.permute(flat, &[0, 2, 1]);
    let qkv = model.linear("qkv", tokens, 96);
    let split = model.reshape(qkv, &[1, 16, 3, 4, 8]);
    let split = model.permute(split, &[2, 0, 3, 4, 1]);
    let parts = [0, 1, 2].map(|part| {
        let part = model.slice(split, 0, part, 1);
        model.reshape(part, &[1, 4, 8, 16])
    });
    let mixed = model.cosine_attention(parts, None);
    let mixed = model.permute(mixed, &[0, 3, 1, 2]);
    let mixed = model.reshape(mixed, &[1, 16, 32]);
    let output = model.linear("out", mixed, 32);
    let (plan, network) = model.plan(output);
    let text = own_ops(&network);
    assert!(text.contains(r#"{"channel_attention":{"heads":4,"cosine":true}}"#), "{text}");
    let products = 2 * 16 * 32 * 8;
    assert_eq!(plan.cost.flops, 16 * 32 * (96 + 32) + products);
}

#[test]
fn a_layer_along_the_positions_exchanges_them_with_the_channels() {
    let mut model = Model::default();
    let x = model.input(&[1, 8, 4, 4]);
    let flat = model.reshape(x, &[1, 8, 16]);
    let tokens = model.permute(flat, &[0, 2, 1]);
    let turned = model.permute(tokens, &[0, 2, 1]);
    let wide = model.linear("token.1", turned, 24);
    let wide = model.apply(Function::Gelu, wide);
    let narrow = model.linear("token.2", wide, 16);
    let back = model.permute(narrow, &[0, 2, 1]);
    let output = model.binary(Binary::Add, tokens, back);
    let (plan, network) = model.plan(output);
    assert_eq!(own_ops(&network).matches(r#""transpose""#).count(), 2);
    assert_eq!(plan.cost.params, 16 * 24 + 24 + 24 * 16 + 16);
    assert_eq!(plan.cost.flops, 2 * 8 * 16 * 24);
    assert_eq!(plan.output.dims(), [1, 16, 8]);
}

/// LeViT has queries, keys and values of a head together, and keys that are narrower than values.
#[test]
fn parts_of_heads_are_put_together() {
    let mut model = Model::default();
    let x = model.input(&[1, 32, 4, 4]);
    let x = model.reshape(x, &[1, 32, 16]);
    let tokens = model.permute(x, &[0, 2, 1]);
    // Two heads of 8 + 8 + 16 channels.
    let qkv = model.linear("qkv", tokens, 64);
    let heads = model.reshape(qkv, &[1, 16, 2, 32]);
    let heads = model.permute(heads, &[0, 2, 1, 3]);
    let parts =
        [(0, 8), (8, 8), (16, 16)].map(|(start, length)| model.slice(heads, 3, start, length));
    let attention = Operation::Attention { causal: false, scale: None, cosine: false };
    let mixed = model.add(attention, &parts, &[1, 2, 16, 16]);
    let mixed = model.permute(mixed, &[0, 2, 1, 3]);
    let mixed = model.reshape(mixed, &[1, 16, 32]);
    let output = model.linear("out", mixed, 32);
    let imported = model.import(output).unwrap();
    assert_eq!(imported.notes.len(), 1, "{:?}", imported.notes);
    let text = serde_json::to_string(&imported.network.ops).unwrap();
    for part in [
        r#"{"slice":{"along":"channels","start":0,"length":16,"step":1}}"#,
        r#"{"slice":{"along":"channels","start":16,"length":16,"step":1}}"#,
        r#"{"slice":{"along":"channels","start":32,"length":"c_out","step":1}}"#,
        r#"{"attention":{"heads":2,"kv_heads":2}}"#,
    ] {
        let numbers = part.replace("\"c_out\"", "32");
        assert!(text.contains(part) || text.contains(&numbers), "{part}: {text}");
    }
}

/// LeViT has a batch norm after the layer whose heads are cut, and ONNX adds its bias apart from it.
#[test]
fn parts_of_heads_are_put_together_behind_norms_and_biases() {
    let mut model = Model::default();
    let x = model.input(&[1, 32, 4, 4]);
    let x = model.reshape(x, &[1, 32, 16]);
    let tokens = model.permute(x, &[0, 2, 1]);
    let weight = model.weight("weight", &[32, 64]);
    let linear = Operation::Linear { transposed: false };
    let product = model.add(linear, &[tokens, weight], &[1, 16, 64]);
    let bias = model.weight("bias", &[64]);
    let qkv = model.binary(Binary::Add, bias, product);
    let rows = model.reshape(qkv, &[16, 64]);
    let norm = ["scale", "shift", "mean", "variance"].map(|name| model.weight(name, &[64]));
    let inputs: Vec<ValueId> = [rows].into_iter().chain(norm).collect();
    let normed = model.add(Operation::BatchNorm { epsilon: 1e-5 }, &inputs, &[16, 64]);
    let heads = model.reshape(normed, &[1, 16, 2, 32]);
    let heads = model.permute(heads, &[0, 2, 1, 3]);
    let parts =
        [(0, 8), (8, 8), (16, 16)].map(|(start, length)| model.slice(heads, 3, start, length));
    let attention = Operation::Attention { causal: false, scale: None, cosine: false };
    let mixed = model.add(attention, &parts, &[1, 2, 16, 16]);
    let mixed = model.permute(mixed, &[0, 2, 1, 3]);
    let mixed = model.reshape(mixed, &[1, 16, 32]);
    let output = model.linear("out", mixed, 32);
    let imported = model.import(output).unwrap();
    assert!(imported.weights.values().all(Given::is_known), "{:?}", imported.weights);
    // The norm is folded into the layer, in the other order too.
    let Given::FoldedWeight { norm, .. } = &imported.weights["nodes.0.n1.weight"] else {
        panic!("{:?}", imported.weights)
    };
    assert!(matches!(norm.scale, Given::Computed(_)), "{norm:?}");
}

/// MobileViT: positions at equal distances are the windows, and nothing is added to the scores.
#[test]
fn attention_over_a_grid_has_biases_only_if_the_model_has_them() {
    let mut model = Model::default();
    let x = model.input(&[1, 32, 4, 4]);
    // Patches of 2x2 positions, and the four places of a patch as sequences.
    let x = model.reshape(x, &[64, 2, 2, 2]);
    let x = model.permute(x, &[0, 2, 1, 3]);
    let x = model.reshape(x, &[1, 32, 4, 4]);
    let x = model.permute(x, &[0, 3, 2, 1]);
    let sequences = model.reshape(x, &[4, 4, 32]);
    let qkv = model.linear("qkv", sequences, 96);
    let split = model.reshape(qkv, &[4, 4, 3, 2, 16]);
    let split = model.permute(split, &[2, 0, 3, 1, 4]);
    let parts = [0, 1, 2].map(|part| {
        let part = model.slice(split, 0, part, 1);
        model.reshape(part, &[4, 2, 4, 16])
    });
    let attention = Operation::Attention { causal: false, scale: None, cosine: false };
    let mixed = model.add(attention, &parts, &[4, 2, 4, 16]);
    let mixed = model.permute(mixed, &[0, 2, 1, 3]);
    let mixed = model.reshape(mixed, &[4, 4, 32]);
    let out = model.linear("out", mixed, 32);
    let back = model.reshape(out, &[1, 4, 4, 32]);
    let back = model.permute(back, &[0, 3, 2, 1]);
    let back = model.reshape(back, &[64, 2, 2, 2]);
    let back = model.permute(back, &[0, 2, 1, 3]);
    let output = model.reshape(back, &[1, 32, 4, 4]);
    let (plan, network) = model.plan(output);
    let text = own_ops(&network);
    let wanted =
        r#"{"window_attention":{"heads":"c_in/16","window":2,"grid":true,"position_bias":false}}"#;
    assert!(text.contains(wanted), "{text}");
    assert_eq!(plan.cost.params, 4 * 32 * 32 + 4 * 32);
}

/// Swin in timm: tokens become a map again, and blocks of positions become channels in an order of their own.
#[test]
fn patches_are_merged_in_any_order_of_their_channels() {
    let mut model = Model::default();
    let x = model.input(&[1, 3, 16, 16]);
    let patches = model.conv("patches", x, 8, [1, 1], 4, 1);
    let size = model.dims(patches)[2];
    let flat = model.reshape(patches, &[1, 8, size * size]);
    let tokens = model.permute(flat, &[0, 2, 1]);
    let tokens = model.linear("first", tokens, 8);
    let half = size / 2;
    let map = model.reshape(tokens, &[1, size, size, 8]);
    let blocks = model.reshape(map, &[1, half, 2, half, 2, 8]);
    let blocks = model.permute(blocks, &[0, 1, 3, 4, 2, 5]);
    let merged = model.reshape(blocks, &[1, half, half, 32]);
    let parts = ["scale", "shift"].map(|part| model.weight(part, &[32]));
    let norm = Operation::LayerNorm { dimensions: 1, epsilon: 1e-6 };
    let normed = model.add(norm, &[merged, parts[0], parts[1]], &[1, half, half, 32]);
    let output = model.linear("reduction", normed, 16);
    let imported = model.import(output).unwrap();
    let text = own_ops(&imported.network);
    assert!(text.contains(r#"{"space_to_depth":{"block":2}}"#), "{text}");
    let orders: Vec<(usize, &[usize])> = imported
        .weights
        .values()
        .filter_map(|given| match given {
            Given::Ordered { axis, order, .. } => Some((*axis, &order[..])),
            Given::Reshaped(given, _) => match &**given {
                Given::Ordered { axis, order, .. } => Some((*axis, &order[..])),
                _ => None,
            },
            _ => None,
        })
        .collect();
    // The model has channels as (column, row, channel), and the catalog as (channel, row, column).
    let place = |at: usize| 16 * (at % 2) + 8 * (at / 2 % 2) + at / 4;
    let wanted: Vec<usize> = (0..32).map(place).collect();
    assert_eq!(orders.len(), 3, "{:?}", imported.weights);
    assert!(orders.iter().all(|(_, order)| *order == wanted), "{orders:?}");
    let mut axes: Vec<usize> = orders.iter().map(|(axis, _)| *axis).collect();
    axes.sort_unstable();
    assert_eq!(axes, [0, 0, 1]);
}
