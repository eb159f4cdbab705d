//! From one graph of primitives to a network of ops: blocks of the catalog where they are, and ops of its own for the
//! rest.

mod define;
mod matching;
mod split;

use std::collections::BTreeMap;
use std::sync::Arc;

use ops_catalog::{Catalog, Merge, NetworkSpec, NodeSpec, Op, OpDef, Primitive};

use self::define::define;
use self::matching::{Known, Matched, matched, unchanged};
use self::split::{Piece, pieces};
use crate::flat::{Apply, Flat, Given, Problem, Source};
use crate::place::network_input;

/// The most primitives of one op.
pub(crate) const MOST: usize = ops_catalog::MAX_NODES;

/// A network, and where its weights are in the model.
#[derive(Debug, Clone)]
pub(crate) struct Blocks {
    pub(crate) network: NetworkSpec,
    pub(crate) weights: BTreeMap<String, Given>,
}

/// A step's primitive.
pub(crate) fn primitive(flat: &Flat, step: usize) -> &Primitive<u32> {
    match &flat.steps[step].apply {
        Apply::Primitive(primitive) => primitive,
        Apply::Windows(_) | Apply::Absorbed | Apply::Assumed => {
            unreachable!("fusing leaves primitives only, and what it absorbed is pruned")
        }
    }
}

/// Makes a network of a flat graph.
pub(crate) fn blocks(flat: &Flat, name: &str, catalog: &Catalog) -> Result<Blocks, Vec<Problem>> {
    let known: Vec<Known> = catalog.ops().filter_map(Known::new).collect();
    let pieces = pieces(flat, &known)?;
    let (ops, found) = assign(flat, &pieces, known, name)?;
    let mut nodes = Vec::with_capacity(pieces.len());
    let mut weights = BTreeMap::new();
    // The node of each value that a piece gives.
    let mut places: BTreeMap<Source, i64> = BTreeMap::from([(Source::Input, -1)]);
    for ((index, piece), matched) in (0i64..).zip(&pieces).zip(&found) {
        nodes.push(NodeSpec {
            op: Some(matched.op.name().to_owned()),
            c_out: Some(matched.c_out),
            stride: Some(matched.stride),
            inputs: Some(piece.inputs.iter().map(|input| places[input]).collect()),
            merge: piece.merge.filter(|merge| *merge != Merge::Add),
        });
        for (step, of_plan) in &matched.steps {
            for (own, given) in &flat.steps[*step].weights {
                weights.insert(format!("nodes.{index}.{of_plan}.{own}"), given.clone());
            }
        }
        places.insert(piece.output, index);
    }
    let network = NetworkSpec {
        name: Some(name.to_owned()),
        input: network_input(flat),
        output: places.get(&flat.output).copied(),
        nodes: Some(nodes),
        ops: (!ops.is_empty()).then_some(ops),
        ..NetworkSpec::default()
    };
    Ok(Blocks { network, weights })
}

/// The op of each piece. What no op of the catalog computes gets one of its own.
fn assign(
    flat: &Flat,
    pieces: &[Piece],
    mut known: Vec<Known>,
    model: &str,
) -> Result<(Vec<OpDef>, Vec<Matched>), Vec<Problem>> {
    let mut found: Vec<Option<Matched>> =
        pieces.iter().map(|piece| piece_in(flat, piece, &known)).collect();
    let mut unknown: Vec<usize> =
        (0..pieces.len()).filter(|&index| found[index].is_none()).collect();
    // A block that keeps its channels can have been defined by one that does not, whose sizes are told apart.
    unknown.sort_by_key(|&index| {
        let piece = &pieces[index];
        flat.shape(piece.entry()).channels() == flat.shape(piece.output).channels()
    });
    let mut ops: Vec<Arc<Op>> = vec![];
    let own = known.len();
    for index in unknown {
        let piece = &pieces[index];
        if let Some(matched) = piece_in(flat, piece, &known[own..]) {
            found[index] = Some(matched);
            continue;
        }
        let op = define(flat, piece, model)?;
        known.extend(Known::new(&op));
        found[index] = piece_in(flat, piece, &known[known.len() - 1..]);
        if found[index].is_none() {
            return Err(vec![unexplained(flat, piece)]);
        }
        ops.push(op);
    }
    let found = found.into_iter().collect::<Option<Vec<Matched>>>();
    let found = found.ok_or_else(|| vec![unexplained(flat, &pieces[0])])?;
    Ok((ops.iter().map(|op| op.def().clone()).collect(), found))
}

fn piece_in(flat: &Flat, piece: &Piece, known: &[Known]) -> Option<Matched> {
    if piece.steps.is_empty() {
        return unchanged(piece.input_shape(flat), known);
    }
    matched(flat, &piece.steps, piece.input_shape(flat), piece.entry(), known)
}

fn unexplained(flat: &Flat, piece: &Piece) -> Problem {
    let step = piece.steps.first().map(|&step| &flat.steps[step]);
    Problem {
        node: step.map(|step| step.place.clone()).unwrap_or_default(),
        operator: step.map(|step| step.operator.clone()).unwrap_or_default(),
        why: "no op can be defined for it: please report the model".to_owned(),
    }
}
