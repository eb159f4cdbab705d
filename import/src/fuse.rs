//! Primitives that a model has as several: squeeze-and-excite, attention with its projections, the start of a
//! transformer.

use ops_catalog::{Activation, Dimension, Gate, Pair, Primitive, TensorShape};

use crate::flat::{Apply, Flat, FlatStep, Given, Problem, Source, Windows};

/// The name of what is no weight of the attention that has it, but would be one of attention inside windows: the table
/// of biases by relative position.
pub(crate) const TABLE: &str = "table";

/// The graph with these primitives in place of their parts.
pub(crate) fn fuse(mut flat: Flat) -> Result<Flat, Vec<Problem>> {
    for find in [squeeze_excite, attention, class_token, positions, one_window] {
        let mut readers = flat.readers();
        for index in 0..flat.steps.len() {
            let fuser = Fuser { flat: &flat, readers: &readers };
            if let Some((step, absorbed)) = find(&fuser, index) {
                flat.steps[index] = step;
                absorbed.into_iter().for_each(|part| flat.steps[part].apply = Apply::Absorbed);
                readers = flat.readers();
            }
        }
    }
    let problems: Vec<Problem> = flat
        .steps
        .iter()
        .filter(|step| matches!(step.apply, Apply::Windows(_)))
        .map(|step| Problem {
            node: step.place.clone(),
            operator: step.operator.clone(),
            why: "attention inside windows without one projection of queries, keys and values before it and one after \
                  it"
                .to_owned(),
        })
        .collect();
    if !problems.is_empty() {
        return Err(problems);
    }
    flat.steps.iter_mut().for_each(|step| step.weights.retain(|(name, _)| name != TABLE));
    Ok(flat.pruned())
}

/// A step in place of the one at an index, and the steps that it computes too.
type Fused = Option<(FlatStep, Vec<usize>)>;

struct Fuser<'a> {
    flat: &'a Flat,
    readers: &'a [usize],
}

impl<'a> Fuser<'a> {
    /// The step of a value that nothing else reads.
    fn only(&self, source: Source) -> Option<(usize, &'a FlatStep)> {
        match source {
            Source::Step(index) if self.readers[index] == 1 => {
                Some((index, &self.flat.steps[index]))
            }
            _ => None,
        }
    }

    /// The step before another one that has one input, if nothing else reads it.
    fn before(&self, step: &FlatStep) -> Option<(usize, &'a FlatStep)> {
        self.only(*step.inputs.first()?)
    }

    /// A layer on each position alone, with a bias, as its width.
    fn pointwise(&self, step: &FlatStep) -> Option<u32> {
        match step.apply {
            Apply::Primitive(Primitive::Linear { out, bias: true }) => Some(out),
            Apply::Primitive(Primitive::Conv2d {
                out,
                kernel,
                stride,
                groups: 1,
                bias: true,
                ..
            }) if kernel == Pair::square(1) && stride == Pair::square(1) => Some(out),
            _ => None,
        }
    }
}

impl Fuser<'_> {
    /// The one layer that gives queries, keys and values of a width, and all steps up to it that nothing else reads.
    fn projection(&self, core: &FlatStep, width: u32) -> Option<(usize, Vec<usize>)> {
        let mut parts = vec![];
        let mut projection = None;
        for (place, &input) in (0..).zip(&core.inputs) {
            let (index, slice) = self.only(input)?;
            let along_channels = Primitive::Slice {
                along: Dimension::Channels,
                start: place * width,
                length: width,
                step: 1,
            };
            let another = projection.is_some_and(|seen| seen != slice.inputs[0]);
            if primitive(slice)? != &along_channels || another {
                return None;
            }
            projection = Some(slice.inputs[0]);
            parts.push(index);
        }
        let Some(Source::Step(projected)) = projection else { return None };
        let all = self.pointwise(&self.flat.steps[projected])?;
        if self.readers[projected] != 3 || all != width.checked_mul(3)? {
            return None;
        }
        parts.push(projected);
        Some((projected, parts))
    }
}

fn primitive(step: &FlatStep) -> Option<&Primitive<u32>> {
    match &step.apply {
        Apply::Primitive(primitive) => Some(primitive),
        _ => None,
    }
}

/// The weights of a layer on each position, under the name of a part, with these dimensions.
fn part(name: &str, step: &FlatStep, dims: Vec<u64>) -> Vec<(String, Given)> {
    let named = |(own, given): &(String, Given)| match own.as_str() {
        "weight" => {
            (format!("{name}.weight"), Given::Reshaped(Box::new(given.clone()), dims.clone()))
        }
        own => (format!("{name}.{own}"), given.clone()),
    };
    step.weights.iter().map(named).collect()
}

/// `x * gate(expand(activation(reduce(mean(x)))))`.
fn squeeze_excite(fuser: &Fuser, index: usize) -> Fused {
    let product = &fuser.flat.steps[index];
    let (Some(Primitive::Mul), &[left, right]) = (primitive(product), &product.inputs[..]) else {
        return None;
    };
    [(left, right), (right, left)].into_iter().find_map(|(x, factor)| {
        let (gated, last) = fuser.only(factor)?;
        let gate = match primitive(last)? {
            Primitive::Sigmoid => Gate::Sigmoid,
            Primitive::Hardsigmoid => Gate::Hardsigmoid,
            _ => return None,
        };
        let (expanded, expand) = fuser.before(last)?;
        let out = fuser.pointwise(expand)?;
        let (activated, middle) = fuser.before(expand)?;
        let activation = match primitive(middle)? {
            Primitive::Relu => Activation::Relu,
            Primitive::Silu => Activation::Silu,
            _ => return None,
        };
        let (reduced, reduce) = fuser.before(middle)?;
        let squeeze = fuser.pointwise(reduce)?;
        let (pooled, pool) = fuser.before(reduce)?;
        let channels = product.output.channels();
        if primitive(pool)? != &Primitive::GlobalAvgPool || pool.inputs != [x] || out != channels {
            return None;
        }
        let (c, narrow) = (u64::from(channels), u64::from(squeeze));
        let mut weights = part("reduce", reduce, vec![narrow, c, 1, 1]);
        weights.extend(part("expand", expand, vec![c, narrow, 1, 1]));
        let apply = Primitive::SqueezeExcite { squeeze, divisor: 1, activation, gate };
        let step = FlatStep {
            apply: Apply::Primitive(apply),
            inputs: vec![x],
            weights,
            ..product.clone()
        };
        Some((step, vec![gated, expanded, activated, reduced, pooled]))
    })
}

/// Attention with the projection of its result, and one projection of queries, keys and values before it.
fn attention(fuser: &Fuser, index: usize) -> Fused {
    let out = &fuser.flat.steps[index];
    let width = fuser.pointwise(out)?;
    let (mixed, core) = fuser.before(out)?;
    let whole = match &core.apply {
        &Apply::Windows(Windows { heads, window, shift, grid, position_bias, cosine }) => {
            Primitive::WindowAttention { heads, window, shift, grid, position_bias, cosine }
        }
        Apply::Primitive(Primitive::Attention {
            heads,
            kv_heads,
            causal: false,
            position_bias: false,
            cosine: false,
        }) if kv_heads.is_none_or(|kv_heads| kv_heads == *heads) => {
            Primitive::SelfAttention { heads: *heads }
        }
        _ => return None,
    };
    let (projected, mut parts) = fuser.projection(core, width)?;
    let qkv = &fuser.flat.steps[projected];
    if fuser.flat.shape(qkv.inputs[0]) != out.output {
        return None;
    }
    parts.push(mixed);
    let mut weights = with_projections(qkv, out, u64::from(width));
    weights.extend(core.weights.iter().cloned());
    let step = FlatStep {
        apply: Apply::Primitive(whole),
        inputs: qkv.inputs.clone(),
        weights,
        ..out.clone()
    };
    Some((step, parts))
}

/// The weights of attention with its projections.
fn with_projections(qkv: &FlatStep, out: &FlatStep, c: u64) -> Vec<(String, Given)> {
    let mut weights = part("qkv", qkv, vec![3 * c, c]);
    weights.extend(part("out", out, vec![c, c]));
    weights
}

/// Attention over all positions of a square map as tokens, with a bias for each pair of them: one window. Files that have
/// the biases without their table do not say that they depend on the relative position alone.
fn one_window(fuser: &Fuser, index: usize) -> Fused {
    let map = &fuser.flat.steps[index];
    let (Primitive::ToMap | Primitive::ToMapOf { .. }, TensorShape::Map { h, w, .. }) =
        (primitive(map)?, map.output)
    else {
        return None;
    };
    let (mapped, out) = fuser.before(map)?;
    let width = fuser.pointwise(out)?;
    let (mixed, core) = fuser.before(out)?;
    let &Primitive::Attention { heads, kv_heads, causal: false, position_bias: true, cosine } =
        primitive(core)?
    else {
        return None;
    };
    let (projected, mut parts) = fuser.projection(core, width)?;
    let qkv = &fuser.flat.steps[projected];
    let (as_tokens, tokens) = fuser.before(qkv)?;
    let plain = Primitive::ToTokens { class_token: false, positions: false };
    let weight = |wanted: &str| {
        let found = core.weights.iter().find(|(name, _)| name == wanted);
        found.map_or(Given::Unknown, |(_, given)| given.clone())
    };
    let same = h == w
        && kv_heads.is_none_or(|kv_heads| kv_heads == heads)
        && primitive(tokens)? == &plain
        && fuser.flat.shape(tokens.inputs[0]) == map.output;
    if !same {
        return None;
    }
    parts.extend([mapped, mixed, as_tokens]);
    let mut weights = with_projections(qkv, out, u64::from(width));
    weights.push(("positions".to_owned(), weight(TABLE)));
    if cosine {
        weights.push(("scale".to_owned(), weight("scale")));
    }
    let apply = Primitive::WindowAttention {
        heads,
        window: h,
        shift: 0,
        grid: false,
        position_bias: true,
        cosine,
    };
    let step = FlatStep {
        apply: Apply::Primitive(apply),
        inputs: tokens.inputs.clone(),
        weights,
        ..map.clone()
    };
    Some((step, parts))
}

/// A map as tokens, with a class token in front.
fn class_token(fuser: &Fuser, index: usize) -> Fused {
    let step = &fuser.flat.steps[index];
    let (tokens, before) = fuser.before(step)?;
    let plain = Primitive::ToTokens { class_token: false, positions: false };
    if primitive(step)? != (&Primitive::PrependTokens { count: 1 }) || primitive(before)? != &plain
    {
        return None;
    }
    let channels = vec![u64::from(step.output.channels())];
    let weights = renamed(step, "class_token", channels);
    let apply = Apply::Primitive(Primitive::ToTokens { class_token: true, positions: false });
    Some((FlatStep { apply, inputs: before.inputs.clone(), weights, ..step.clone() }, vec![tokens]))
}

/// A map as tokens, with position embeddings.
fn positions(fuser: &Fuser, index: usize) -> Fused {
    let step = &fuser.flat.steps[index];
    let (tokens, before) = fuser.before(step)?;
    let (Primitive::PositionEmbedding, &Primitive::ToTokens { class_token, positions: false }) =
        (primitive(step)?, primitive(before)?)
    else {
        return None;
    };
    let TensorShape::Tokens { l, c, .. } = step.output else { return None };
    let mut weights = before.weights.clone();
    weights.extend(renamed(step, "positions", vec![1, u64::from(l), u64::from(c)]));
    let apply = Apply::Primitive(Primitive::ToTokens { class_token, positions: true });
    Some((FlatStep { apply, inputs: before.inputs.clone(), weights, ..step.clone() }, vec![tokens]))
}

/// The one weight of a step under another name.
fn renamed(step: &FlatStep, name: &str, dims: Vec<u64>) -> Vec<(String, Given)> {
    let given = step.weights.first().map_or(Given::Unknown, |(_, given)| given.clone());
    vec![(name.to_owned(), Given::Reshaped(Box::new(given), dims))]
}
