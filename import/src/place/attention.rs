//! Attention over sequences, over maps, and inside the windows of maps.

use ops_catalog::{Primitive, TensorShape};

use super::dense::{named, stored};
use super::{Placed, Placer, Why, number, told};
use crate::flat::{Apply, FlatStep, Given, Source, Windows};
use crate::fuse::TABLE;
use crate::graph::{Kind, Value};
use crate::view::{Axis, Digit, Digits, axes, extent};

/// Queries, keys or values: `[batch, heads, positions, channels of a head]`.
#[derive(Debug)]
struct Heads {
    /// Heads that are stored.
    heads: u64,
    /// How often each of them is used.
    repeats: u64,
    /// Channels of a head.
    size: u64,
    /// Digits of the positions, the slowest first.
    positions: Vec<Digit>,
    /// Digits of rows and columns that count windows.
    windows: Vec<Digit>,
}

impl Placer<'_> {
    pub(super) fn attention(
        &mut self,
        causal: bool,
        scale: Option<f64>,
        cosine: bool,
    ) -> Result<Placed, Why> {
        let parts = [self.argument(0)?, self.argument(1)?, self.argument(2)?];
        if let Some(heads) = self.channel_heads(&parts) {
            if self.node.inputs.len() > 3 + usize::from(cosine) || causal {
                return Err("attention of channels with a mask".into());
            }
            let positions = self.shape(&parts[0]).positions() as f64;
            self.note_scale(scale.filter(|_| !cosine), positions);
            let primitive = Primitive::ChannelAttention { heads: number(heads)?, cosine };
            let sources = parts.iter().map(|part| part.source).collect();
            let source = self.push(primitive, sources, self.head_factors(cosine, heads)?)?;
            return Ok(Placed { source, ..parts[0].clone() });
        }
        let [q, k, v] = [self.heads(&parts[0])?, self.heads(&parts[1])?, self.heads(&parts[2])?];
        let shared = q.heads.is_multiple_of(k.heads * k.repeats);
        if k.heads != v.heads || q.repeats != 1 || !shared {
            return Err(format!("{} heads of queries and {} of keys", q.heads, k.heads));
        }
        self.note_scale(scale.filter(|_| !cosine), q.size as f64);
        let first_mask = 3 + usize::from(cosine);
        let masks: Vec<&Value> = (first_mask..self.node.inputs.len())
            .map(|index| self.weight(index))
            .collect::<Result<_, _>>()?;
        let is_map = matches!(self.shape(&parts[0]), TensorShape::Map { .. });
        let inside = !q.windows.is_empty() || parts[0].rolled != [0, 0];
        let (source, digits) = if inside || (is_map && !masks.is_empty()) {
            self.in_windows(&parts, [&q, &k, &v], cosine, &masks)?
        } else {
            self.over_all(&parts, [&q, &k, &v], (causal, cosine), &masks)?
        };
        Ok(Placed { source, digits, rolled: parts[0].rolled })
    }

    /// Notes a factor of scores that is not the usual one for products of so many terms.
    fn note_scale(&mut self, scale: Option<f64>, terms: f64) {
        if scale.is_some_and(|scale| (scale * terms.sqrt() - 1.0).abs() > 1e-3) {
            self.note(
                "the scores of an attention are scaled by another number than 1 / sqrt(head size), which takes as long",
            );
        }
    }

    /// The factors of the heads, of attention by cosines.
    fn head_factors(&self, cosine: bool, heads: u64) -> Result<Vec<(String, Given)>, Why> {
        if !cosine {
            return Ok(vec![]);
        }
        let factors = self.weight(3)?;
        Ok(vec![named("scale", Given::Reshaped(Box::new(stored(factors)), vec![heads]))])
    }

    /// The number of heads, if queries, keys and values are `[batch, heads, channels of a head, positions]`.
    fn channel_heads(&self, parts: &[Placed; 3]) -> Option<u64> {
        let [_, heads, size, _] = &parts[0].digits.0[..] else { return None };
        let (heads, size) = (extent(heads), extent(size));
        let alike = |part: &Placed| {
            let shape = self.shape(part);
            let dims = [Digits::natural(shape).sizes()[0], heads, size, shape.positions()];
            let natural = Digits::natural(shape);
            let first = match shape {
                TensorShape::Tokens { .. } => natural.permuted(&[0, 2, 1]),
                TensorShape::Map { .. } => Some(natural),
            };
            let wanted = first.and_then(|digits| digits.reshaped(&dims));
            part.rolled == [0, 0] && wanted.as_ref() == Some(&part.digits)
        };
        parts.iter().all(alike).then_some(heads)
    }

    /// The table of biases by relative position in windows of a side, from the biases of pairs among the masks.
    fn table(&self, side: u64, heads: u64, masks: &[&Value]) -> Given {
        let places = side * side;
        let whole = |mask: &&&Value| mask.dims.iter().product::<u64>() == heads * places * places;
        let biases = masks.iter().find(whole).map_or(Given::Unknown, |mask| stored(mask));
        let dims = vec![1, heads, places, places];
        Given::ByOffset(Box::new(Given::Reshaped(Box::new(biases), dims)), side)
    }

    /// How a value is read as heads.
    fn heads(&self, placed: &Placed) -> Result<Heads, Why> {
        let wrong = || format!("attention over a tensor in the order {}", told(&placed.digits));
        let channels = u64::from(self.shape(placed).channels());
        let [before @ .., positions, last] = &placed.digits.0[..] else { return Err(wrong()) };
        let size = match last[..] {
            [] => 1,
            [digit] if digit.axis == Axis::Channels && digit.stride == 1 => digit.size,
            _ => return Err(wrong()),
        };
        let mut heads = Heads {
            heads: channels / size,
            repeats: 1,
            size,
            positions: positions.clone(),
            windows: vec![],
        };
        for digit in before.iter().flatten() {
            match digit.axis {
                Axis::Batch => {}
                Axis::Channels if digit.stride == size && digit.size == heads.heads => {}
                Axis::Repeated => heads.repeats *= digit.size,
                Axis::Rows | Axis::Columns => heads.windows.push(*digit),
                _ => return Err(wrong()),
            }
        }
        let at_positions =
            |digit: &Digit| matches!(digit.axis, Axis::Rows | Axis::Columns | Axis::Tokens);
        if positions.iter().all(at_positions) { Ok(heads) } else { Err(wrong()) }
    }

    /// Each position sees all.
    fn over_all(
        &mut self,
        parts: &[Placed; 3],
        [q, k, v]: [&Heads; 3],
        (causal, cosine): (bool, bool),
        masks: &[&Value],
    ) -> Result<(Source, Digits), Why> {
        for (part, heads) in parts.iter().zip([q, k, v]) {
            let whole: Vec<Digit> = axes(self.shape(part))
                .into_iter()
                .filter(|(axis, size)| !matches!(axis, Axis::Batch | Axis::Channels) && *size > 1)
                .map(|(axis, size)| Digit { axis, size, stride: 1 })
                .collect();
            if heads.positions != whole {
                return Err(format!("attention over a tensor in the order {}", told(&part.digits)));
            }
        }
        let (causal, bias) = self.masked(causal, masks)?;
        let given = bias.map(|mask| {
            let dims = vec![1, q.heads, extent(&q.positions), extent(&k.positions)];
            named("positions", Given::Reshaped(Box::new(stored(mask)), dims))
        });
        let primitive = Primitive::Attention {
            heads: number(q.heads)?,
            kv_heads: Some(number(k.heads)?),
            causal,
            position_bias: given.is_some(),
            cosine,
        };
        let side = extent(&q.positions).isqrt();
        let square = side * side == extent(&q.positions) && q.positions == k.positions;
        let table =
            (given.is_some() && square).then(|| named(TABLE, self.table(side, q.heads, masks)));
        let sources = parts.iter().map(|part| part.source).collect();
        let mut weights = self.head_factors(cosine, q.heads)?;
        weights.extend(given.into_iter().chain(table));
        let source = self.push(primitive, sources, weights)?;
        Ok((source, with_head_size(&parts[0].digits, q.size, v.size)))
    }

    /// Whether the masks make the attention causal, and the mask that is a learned bias.
    fn masked<'m>(
        &self,
        causal: bool,
        masks: &[&'m Value],
    ) -> Result<(bool, Option<&'m Value>), Why> {
        let mut causal = causal;
        let mut bias = None;
        for mask in masks {
            let hides = |number: f64| match mask.kind {
                Kind::Boolean => number == 0.0,
                _ => number < -1e4,
            };
            let &[.., rows, columns] = mask.dims.as_slice() else {
                return Err("a mask of one number".into());
            };
            match &mask.numbers {
                Some(numbers)
                    if !numbers.iter().any(|&number| hides(number))
                        && (mask.kind == Kind::Boolean
                            || numbers.iter().all(|&number| number == 0.0)) => {}
                Some(numbers) if is_triangle(numbers, rows, columns, hides) => causal = true,
                None if mask.dims.len() >= 3 && bias.is_none() && mask.kind == Kind::Float => {
                    bias = Some(*mask)
                }
                Some(_) if mask.dims.len() >= 3 && bias.is_none() && mask.kind == Kind::Float => {
                    bias = Some(*mask)
                }
                _ => {
                    return Err(format!(
                        "its mask `{}` of the shape {:?} is neither causal nor a bias of each head",
                        mask.name, mask.dims
                    ));
                }
            }
        }
        Ok((causal, bias))
    }

    /// Rotary position embedding of queries or keys.
    pub(super) fn rotary(&mut self) -> Result<Placed, Why> {
        let input = self.argument(0)?;
        let heads = self.heads(&input)?;
        let primitive = Primitive::Rotary { heads: number(heads.heads)? };
        let source = self.push(primitive, vec![input.source], vec![])?;
        Ok(Placed { source, ..input })
    }

    /// Each position sees those of its window.
    fn in_windows(
        &mut self,
        parts: &[Placed; 3],
        [q, k, v]: [&Heads; 3],
        cosine: bool,
        masks: &[&Value],
    ) -> Result<(Source, Digits), Why> {
        let TensorShape::Map { h, w, .. } = self.shape(&parts[0]) else {
            return Err("attention inside parts of a sequence".into());
        };
        let alike = |other: &Heads| {
            (other.heads, other.size) == (q.heads, q.size)
                && other.positions == q.positions
                && other.windows == q.windows
        };
        if !alike(k) || !alike(v) || parts.iter().any(|part| part.rolled != parts[0].rolled) {
            return Err(
                "attention inside windows whose keys lie in another order than the queries".into(),
            );
        }
        let (window, grid) = window_of(&q.positions, [h.into(), w.into()]).ok_or_else(|| {
            format!("attention over a tensor in the order {}", told(&parts[0].digits))
        })?;
        let [down, across] = parts[0].rolled;
        let shift = u32::try_from(-down.min(across)).map_err(|_| "a roll forwards".to_owned())?;
        if [down, across].iter().any(|&rolled| rolled != 0 && rolled != -i64::from(shift)) {
            return Err("rows and columns are rolled by different numbers".into());
        }
        let heads = number(q.heads)?;
        let mut weights = self.head_factors(cosine, q.heads)?;
        // What is added to the windows of all heads alike is the mask of a shift.
        let position_bias = masks.iter().any(|mask| is_for_each_head(mask, q.heads));
        if position_bias {
            weights.push(named("positions", self.table(window, q.heads, masks)));
        }
        let output = self.shape(&parts[0]);
        self.flat.steps.push(FlatStep {
            apply: Apply::Windows(Windows {
                heads,
                window: number(window)?,
                shift,
                grid,
                position_bias,
                cosine,
            }),
            inputs: parts.iter().map(|part| part.source).collect(),
            output,
            weights,
            place: self.node.place.clone(),
            operator: self.node.operator.clone(),
        });
        let source = Source::Step(self.flat.steps.len() - 1);
        Ok((source, parts[0].digits.clone()))
    }
}

/// Whether something that is added to scores has its own numbers for each head.
fn is_for_each_head(mask: &Value, heads: u64) -> bool {
    match mask.dims[..] {
        [ref before @ .., own, _, _] => {
            own == heads && (heads > 1 || before.iter().all(|&size| size == 1))
        }
        _ => false,
    }
}

/// The digits of queries with another size of a head.
fn with_head_size(queries: &Digits, old: u64, new: u64) -> Digits {
    let resized = |digit: &Digit| match digit.axis {
        Axis::Channels if digit.stride == 1 && digit.size == old => Digit { size: new, ..*digit },
        Axis::Channels => Digit { stride: new, ..*digit },
        _ => *digit,
    };
    Digits(queries.0.iter().map(|digits| digits.iter().map(resized).collect()).collect())
}

/// The side of the windows of a map of `[h, w]`, by the positions of one window, and whether they are spread over the
/// map.
fn window_of(positions: &[Digit], [h, w]: [u64; 2]) -> Option<(u64, bool)> {
    let &[row, column] = positions else { return None };
    let is_square =
        row.axis == Axis::Rows && column.axis == Axis::Columns && row.size == column.size;
    let side = row.size;
    match (row.stride, column.stride) {
        (1, 1) if is_square => Some((side, false)),
        (down, across) if is_square && down * side == h && across * side == w => Some((side, true)),
        _ => None,
    }
}

/// Whether the numbers of a mask hide just what comes later.
fn is_triangle(numbers: &[f64], rows: u64, columns: u64, hides: impl Fn(f64) -> bool) -> bool {
    let (rows, columns) = (rows as usize, columns as usize);
    rows == columns
        && rows > 1
        && numbers.chunks(columns).enumerate().all(|(row, numbers)| {
            let row = row % rows;
            numbers.iter().enumerate().all(|(column, &number)| hides(number) == (column > row))
        })
}
