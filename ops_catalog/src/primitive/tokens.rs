//! Sequences of tokens, and attention over them.

use super::cost::product;
use super::infer::{divides, divides_map, map, tokens};
use super::windows::check_factor;
use crate::Invalid;
use crate::tensor::TensorShape;

/// The output and the products of attention over queries, keys and values. Each position of the queries is multiplied
/// with each one of the keys and of the values; a causal mask changes nothing in that, as in PyTorch's own count.
pub(super) fn mixed(
    heads: u32,
    kv_heads: u32,
    causal: bool,
    inputs: &[TensorShape],
) -> Result<(TensorShape, u64), Invalid> {
    let [queries, keys, values] = [inputs[0], inputs[1], inputs[2]];
    divides("heads", heads, queries.channels())?;
    if !heads.is_multiple_of(kv_heads) {
        return Err(Invalid::here(format!(
            "kv_heads {kv_heads} does not divide the {heads} heads"
        )));
    }
    let differ = |what: &str, one: TensorShape, other: TensorShape| {
        Invalid::new("inputs", format!("{what} differ: {one} and {other}"))
    };
    let head = queries.channels() / heads;
    if u64::from(keys.channels()) != u64::from(head) * u64::from(kv_heads) {
        return Err(Invalid::new(
            "inputs",
            format!(
                "the keys have {} channels, but {kv_heads} heads of {head} channels, as the queries \
                 have, are {}",
                keys.channels(),
                u64::from(head) * u64::from(kv_heads)
            ),
        ));
    }
    divides("kv_heads", kv_heads, values.channels())?;
    if [keys, values].iter().any(|other| other.batch() != queries.batch()) {
        return Err(differ("the batches of queries and keys or values", queries, keys));
    }
    if keys.positions() != values.positions() {
        return Err(differ("the positions of keys and values", keys, values));
    }
    if causal && keys.positions() != queries.positions() {
        return Err(differ(
            "a causal attention has as many keys as queries, but they",
            queries,
            keys,
        ));
    }
    let out = u64::from(values.channels() / kv_heads) * u64::from(heads);
    let out = u32::try_from(out).map_err(|_| Invalid::here("is too large to measure"))?;
    let products = [queries.channels(), out].map(|channels| {
        let batch = u64::from(queries.batch());
        product(&[batch, queries.positions(), keys.positions(), u64::from(channels)])
    });
    let [scores, mixed] = products;
    Ok((queries.with_channels(out).checked()?, scores? + mixed?))
}

/// The windows of a map.
pub(super) struct Windows {
    /// Positions of all windows, of the whole batch, padding included.
    pub(super) positions: u64,
    /// Positions of one window.
    pub(super) length: u64,
    /// Relative positions of two places of one window.
    pub(super) offsets: u64,
}

impl Windows {
    pub(super) fn of(
        input: TensorShape,
        window: u32,
        shift: u32,
        grid: bool,
    ) -> Result<Windows, Invalid> {
        let (n, _, h, w) = map(input)?;
        check_factor("window", window)?;
        if grid {
            divides_map("window", window, h, w)?;
        }
        if shift >= window || (grid && shift > 0) {
            let limit = if grid { "a grid has no shift" } else { "it is less than the window" };
            return Err(Invalid::new("shift", format!("is {shift}; {limit}")));
        }
        let padded = |size: u32| u64::from(size).next_multiple_of(u64::from(window));
        let side = u64::from(window);
        Ok(Windows {
            positions: product(&[u64::from(n), padded(h), padded(w)])?,
            length: side * side,
            offsets: (2 * side - 1) * (2 * side - 1),
        })
    }
}

pub(super) fn tokens_of(input: TensorShape, class_token: bool) -> Result<TensorShape, Invalid> {
    let (n, c, h, w) = map(input)?;
    let l = u64::from(h) * u64::from(w) + u64::from(class_token);
    let l = u32::try_from(l).map_err(|_| Invalid::here(format!("{l} tokens are too many")))?;
    Ok(TensorShape::Tokens { n, l, c })
}

/// Tokens as a map of a height and a width.
pub(super) fn map_of(input: TensorShape, [h, w]: [u32; 2]) -> Result<TensorShape, Invalid> {
    let l = tokens(input)?;
    if u64::from(l) != u64::from(h) * u64::from(w) {
        return Err(Invalid::new("inputs", format!("{l} tokens are no map of {h}x{w}")));
    }
    Ok(TensorShape::Map { n: input.batch(), c: input.channels(), h, w })
}

/// Tokens with positions and channels exchanged.
pub(super) fn transposed(input: TensorShape) -> Result<TensorShape, Invalid> {
    let l = tokens(input)?;
    Ok(TensorShape::Tokens { n: input.batch(), l: input.channels(), c: l })
}

/// One sequence for each place of a patch.
pub(super) fn unfolded(input: TensorShape, patch: u32) -> Result<TensorShape, Invalid> {
    let (n, c, h, w) = map(input)?;
    check_factor("patch", patch)?;
    divides_map("patch", patch, h, w)?;
    let sequences = u64::from(n) * u64::from(patch) * u64::from(patch);
    let l = u64::from(h / patch) * u64::from(w / patch);
    match (u32::try_from(sequences), u32::try_from(l)) {
        (Ok(n), Ok(l)) => Ok(TensorShape::Tokens { n, l, c }),
        _ => Err(Invalid::here("is too large to measure")),
    }
}

/// The map whose unfolding the tokens are.
pub(super) fn folded(
    input: TensorShape,
    like: TensorShape,
    patch: u32,
) -> Result<TensorShape, Invalid> {
    tokens(input)?;
    let map = like.with_channels(input.channels());
    let wanted = unfolded(map, patch)?;
    if wanted != input {
        return Err(Invalid::new(
            "inputs",
            format!("the patches of a map {map} are {wanted}, and not {input}"),
        ));
    }
    map.checked()
}

/// Sequences of one batch and width, one after the other.
pub(super) fn concatenated_tokens(inputs: &[TensorShape]) -> Result<TensorShape, Invalid> {
    let mut length = 0u32;
    for &shape in inputs {
        let l = tokens(shape)?;
        if (shape.batch(), shape.channels()) != (inputs[0].batch(), inputs[0].channels()) {
            return Err(Invalid::here(format!(
                "its inputs differ in more than their length: {} and {shape}",
                inputs[0]
            )));
        }
        length = length.checked_add(l).ok_or_else(|| Invalid::here("is too large to measure"))?;
    }
    Ok(TensorShape::Tokens { n: inputs[0].batch(), l: length, c: inputs[0].channels() })
}

pub(super) fn prepended(input: TensorShape, count: u32) -> Result<TensorShape, Invalid> {
    check_factor("count", count)?;
    let l = tokens(input)?.saturating_add(count);
    Ok(TensorShape::Tokens { n: input.batch(), l, c: input.channels() })
}

pub(super) fn selected(input: TensorShape, index: u32) -> Result<TensorShape, Invalid> {
    let l = tokens(input)?;
    if index >= l {
        return Err(Invalid::new("index", format!("is {index}, and there are {l} tokens")));
    }
    Ok(TensorShape::Map { n: input.batch(), c: input.channels(), h: 1, w: 1 })
}
