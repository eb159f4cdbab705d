//! Where a graph of primitives is cut into pieces: parts with one input and one output.

use std::collections::BTreeSet;

use ops_catalog::{Merge, Primitive, TensorShape};

use super::matching::{Known, matched};
use super::{MOST, primitive};
use crate::flat::{Flat, Problem, Source};

/// The most neighbouring parts that are compared with one op of the catalog.
const MOST_PARTS: usize = 12;

/// A part of a graph that becomes a node of a network.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    /// What it reads: one value, or several that are merged.
    pub(super) inputs: Vec<Source>,
    /// How several values become one.
    pub(super) merge: Option<Merge>,
    /// The step that merges them, which is no step of the op.
    merged: Option<usize>,
    /// Its steps, in order. None for a merge alone.
    pub(super) steps: Vec<usize>,
    /// What it gives.
    pub(super) output: Source,
}

impl Piece {
    /// The value that its op reads.
    pub(super) fn entry(&self) -> Source {
        self.merged.map_or(self.inputs[0], Source::Step)
    }

    pub(super) fn input_shape(&self, flat: &Flat) -> TensorShape {
        flat.shape(self.entry())
    }
}

/// The pieces of a graph, in an order in which they can run.
pub(super) fn pieces(flat: &Flat, known: &[Known]) -> Result<Vec<Piece>, Vec<Problem>> {
    let parts = parts(flat);
    let mut pieces = vec![];
    let mut at = 0;
    while at < parts.len() {
        let entry = entry(&parts[at]);
        if let Some(end) = longest_match(flat, &parts[at..], entry, known) {
            pieces.push(piece(entry, joined(&parts[at..at + end])));
            at += end;
            continue;
        }
        if parts[at].len() > MOST {
            pieces.extend(unwoven(flat, &parts[at])?);
            at += 1;
            continue;
        }
        let end = if parts[at].len() == 1 { chain(flat, &parts[at..], known) } else { 1 };
        pieces.push(piece(entry, joined(&parts[at..at + end])));
        at += end;
    }
    if pieces.is_empty() {
        return Err(vec![Problem {
            node: "the model".to_owned(),
            operator: "graph".to_owned(),
            why: "its output is its input".to_owned(),
        }]);
    }
    Ok(pieces)
}

fn piece(entry: Source, steps: Vec<usize>) -> Piece {
    let output = steps.last().map_or(entry, |&step| Source::Step(step));
    Piece { inputs: vec![entry], merge: None, merged: None, steps, output }
}

fn joined(parts: &[Vec<usize>]) -> Vec<usize> {
    parts.concat()
}

/// The value before a part: parts are neighbours in the order of the steps.
fn entry(part: &[usize]) -> Source {
    match part[0] {
        0 => Source::Input,
        first => Source::Step(first - 1),
    }
}

/// The steps between values through which everything goes.
fn parts(flat: &Flat) -> Vec<Vec<usize>> {
    let count = flat.steps.len();
    // The last reader of the input, and of each step.
    let mut last = vec![0; count + 1];
    for (index, step) in flat.steps.iter().enumerate() {
        for &input in &step.inputs {
            last[slot(input)] = index;
        }
    }
    last[slot(flat.output)] = count;
    let mut parts = vec![];
    let mut part = vec![];
    // The last reader of anything before the current step.
    let mut open = last[0];
    for index in 0..count {
        part.push(index);
        if open <= index {
            parts.push(std::mem::take(&mut part));
        }
        open = open.max(last[index + 1]);
    }
    if !part.is_empty() {
        parts.push(part);
    }
    parts
}

fn slot(source: Source) -> usize {
    match source {
        Source::Input => 0,
        Source::Step(index) => index + 1,
    }
}

/// The number of parts of the longest block of the catalog that begins here.
fn longest_match(
    flat: &Flat,
    parts: &[Vec<usize>],
    entry: Source,
    known: &[Known],
) -> Option<usize> {
    let mut ends = vec![];
    let mut steps = 0;
    for (index, part) in parts.iter().take(MOST_PARTS).enumerate() {
        steps += part.len();
        if steps > MOST {
            break;
        }
        ends.push(index + 1);
    }
    let matches = |end: &usize| {
        let steps = joined(&parts[..*end]);
        matched(flat, &steps, flat.shape(entry), entry, known).is_some()
    };
    ends.into_iter().rev().find(matches)
}

/// The number of parts of a layer with what belongs to it: what moves elements before it, and norms and activations
/// after it.
fn chain(flat: &Flat, parts: &[Vec<usize>], known: &[Known]) -> usize {
    let single = |index: usize| parts.get(index).filter(|part| part.len() == 1).map(|part| part[0]);
    let mut end = 1;
    let mut found_layer = !is_move(primitive(flat, parts[0][0]));
    while let Some(step) = single(end) {
        let next = primitive(flat, step);
        let belongs = match found_layer {
            true => is_light(next),
            // A block of the catalog has its own beginning.
            false => {
                let rest = &parts[end..];
                longest_match(flat, rest, entry(&rest[0]), known).is_none()
            }
        };
        if !belongs {
            break;
        }
        found_layer |= !is_move(next);
        end += 1;
    }
    end
}

/// Whether a primitive only moves elements.
fn is_move(primitive: &Primitive<u32>) -> bool {
    matches!(
        primitive,
        Primitive::Pad { .. }
            | Primitive::Slice { .. }
            | Primitive::Flatten
            | Primitive::Shuffle { .. }
            | Primitive::SpaceToDepth { .. }
            | Primitive::Transpose
            | Primitive::ToTokens { class_token: false, positions: false }
    )
}

/// Whether a primitive belongs to the layer before it.
fn is_light(primitive: &Primitive<u32>) -> bool {
    primitive.is_activation()
        || primitive.is_norm()
        || matches!(
            primitive,
            Primitive::LayerScale
                | Primitive::LayerShift
                | Primitive::Scale
                | Primitive::Shift
                | Primitive::Transpose
                | Primitive::Prelu { .. }
                | Primitive::Flatten
                | Primitive::Slice { .. }
                | Primitive::ToTokens { class_token: false, positions: false }
        )
}

/// The pieces of a part that is larger than an op may be: branches that are merged by nodes of the network.
fn unwoven(flat: &Flat, part: &[usize]) -> Result<Vec<Piece>, Vec<Problem>> {
    let mut units = Units::new(flat, part);
    for &step in part {
        units.close(step);
    }
    for &step in part {
        units.follow(step);
    }
    let mut pieces = vec![];
    let mut problems = vec![];
    for steps in units.ordered() {
        match unit(flat, &steps) {
            Ok(piece) => pieces.push(piece),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() { Ok(pieces) } else { Err(problems) }
}

/// A unit as a piece: one value goes in, or several that a node of the network can merge.
fn unit(flat: &Flat, steps: &[usize]) -> Result<Piece, Problem> {
    let inside: BTreeSet<Source> = steps.iter().map(|&step| Source::Step(step)).collect();
    let read = steps.iter().flat_map(|&step| &flat.steps[step].inputs);
    let outside: BTreeSet<Source> =
        read.copied().filter(|source| !inside.contains(source)).collect();
    let output = Source::Step(steps[steps.len() - 1]);
    if let [entry] = outside.iter().copied().collect::<Vec<_>>()[..] {
        return Ok(piece(entry, steps.to_vec()));
    }
    let first = &flat.steps[steps[0]];
    let merge = mergeable(flat, steps[0]);
    let all_at_the_head = first.inputs.iter().copied().collect::<BTreeSet<_>>() == outside;
    match merge {
        Some(merge) if all_at_the_head => Ok(Piece {
            inputs: first.inputs.clone(),
            merge: Some(merge),
            merged: Some(steps[0]),
            steps: steps[1..].to_vec(),
            output,
        }),
        _ => Err(Problem {
            node: first.place.clone(),
            operator: first.operator.clone(),
            why: format!(
                "it brings {} values together in a part of the model that is larger than an op may be ({MOST} \
                 primitives), and it is no sum, product or concatenation of equal shapes",
                outside.len()
            ),
        }),
    }
}

/// How a node of a network can do what a step does.
fn mergeable(flat: &Flat, step: usize) -> Option<Merge> {
    let inputs = &flat.steps[step].inputs;
    let alike = inputs.iter().all(|&input| flat.shape(input) == flat.shape(inputs[0]));
    match primitive(flat, step) {
        Primitive::Add if alike => Some(Merge::Add),
        Primitive::Mul if alike => Some(Merge::Mul),
        Primitive::Concat => Some(Merge::Concat),
        _ => None,
    }
}

/// Groups of steps.
struct Units<'a> {
    flat: &'a Flat,
    first: usize,
    /// The group of each step of the part.
    unit: Vec<usize>,
    readers: Vec<Vec<usize>>,
}

impl<'a> Units<'a> {
    fn new(flat: &'a Flat, part: &[usize]) -> Units<'a> {
        let first = part[0];
        let mut readers = vec![vec![]; flat.steps.len()];
        for (index, step) in flat.steps.iter().enumerate() {
            for &input in &step.inputs {
                if let Source::Step(input) = input {
                    readers[input].push(index);
                }
            }
        }
        Units { flat, first, unit: (0..part.len()).collect(), readers }
    }

    fn unit_of(&self, step: usize) -> Option<usize> {
        step.checked_sub(self.first).and_then(|place| self.unit.get(place).copied())
    }

    fn members(&self, unit: usize) -> Vec<usize> {
        (0..self.unit.len())
            .filter(|&place| self.unit[place] == unit)
            .map(|place| place + self.first)
            .collect()
    }

    fn join(&mut self, from: usize, to: usize) {
        self.unit.iter_mut().filter(|unit| **unit == from).for_each(|unit| *unit = to);
    }

    /// Joins a step that reads several values with all that leads to it from one value, if nothing else reads any of
    /// that and it is small enough.
    fn close(&mut self, step: usize) {
        let mut open: BTreeSet<Source> = self.flat.steps[step].inputs.iter().copied().collect();
        if open.len() < 2 {
            return;
        }
        let mut closed = BTreeSet::from([step]);
        while open.len() > 1 {
            // The latest value can't lead to any other one.
            let Some(Source::Step(latest)) = open.pop_last() else { return };
            let Some(unit) = self.unit_of(latest) else { return };
            for member in self.members(unit) {
                closed.insert(member);
                open.remove(&Source::Step(member));
            }
            let read = closed.iter().flat_map(|&step| &self.flat.steps[step].inputs);
            let outside = |source: &&Source| match source {
                Source::Step(step) => !closed.contains(step),
                Source::Input => true,
            };
            open = read.filter(outside).copied().collect();
            if closed.len() > MOST {
                return;
            }
        }
        let alone = closed
            .iter()
            .filter(|&&inner| inner != step)
            .all(|&inner| self.readers[inner].iter().all(|reader| closed.contains(reader)));
        if let (true, Some(to)) = (alone, self.unit_of(step)) {
            for inner in closed {
                if let Some(from) = self.unit_of(inner) {
                    self.join(from, to);
                }
            }
        }
    }

    /// Joins a step that reads one value with what gives it, if nothing else reads that.
    fn follow(&mut self, step: usize) {
        let Some(own) = self.unit_of(step) else { return };
        let members = self.members(own);
        let read = members.iter().flat_map(|&member| &self.flat.steps[member].inputs);
        let outside: BTreeSet<Source> = read
            .copied()
            .filter(|source| !matches!(source, Source::Step(step) if members.contains(step)))
            .collect();
        let [Source::Step(before)] = outside.iter().copied().collect::<Vec<_>>()[..] else {
            return;
        };
        let Some(unit) = self.unit_of(before) else { return };
        let inside = |reader: &usize| members.contains(reader);
        let others = self.members(unit);
        if self.readers[before].iter().all(inside)
            && others.last() == Some(&before)
            && others.len() + members.len() <= MOST
        {
            self.join(own, unit);
        }
    }

    /// The groups, each in order, in an order in which they can run.
    fn ordered(&self) -> Vec<Vec<usize>> {
        let mut units: Vec<usize> = self.unit.clone();
        units.sort_unstable();
        units.dedup();
        let mut groups: Vec<Vec<usize>> =
            units.into_iter().map(|unit| self.members(unit)).collect();
        // All that a group reads comes before its last step, and groups end where they are read.
        groups.sort_by_key(|group| group.last().copied());
        groups
    }
}
