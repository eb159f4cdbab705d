//! The running order of the ops of all networks of a space.
//!
//! A network's ops run in the order of a depth-first walk from its output ([`post_order`]). The walk over a program
//! follows only the wires that every network has. If each other wire leads to a place that the walk has passed before,
//! it changes nothing, and one order serves all networks.

use super::program::{Cell, CellUse, INPUT_TAP, Program, Step};
use crate::Invalid;
use crate::network::{Value, post_order};

/// The wires of a program, by slot.
struct Wires {
    /// Wires that every network has in which both of their ends exist.
    certain: Vec<Vec<Value>>,
    /// The other ones: reader, and what it may read.
    possible: Vec<(usize, Value)>,
}

/// The place of each slot in the running order; none if the order depends on the network.
///
/// # Errors
/// When the result of an op is never used.
pub(super) fn running_order(program: &Program) -> Result<Option<Vec<u32>>, Invalid> {
    let slots = program.slots as usize;
    let mut wires = Wires { certain: vec![vec![]; slots], possible: vec![] };
    let mut owners: Vec<&str> = vec![""; slots];
    let output = wires.connect(program, &mut owners);
    // A slot for the output, so that it can be several values.
    wires.certain.push(output);
    let certain: Vec<&[Value]> = wires.certain.iter().map(Vec::as_slice).collect();
    let Ok(order) = post_order(&certain, slots) else { return Ok(None) };
    let mut ranks = vec![None; slots + 1];
    for (rank, &slot) in (0u32..).zip(&order) {
        ranks[slot] = Some(rank);
    }
    let mut fixed = true;
    for &(reader, source) in &wires.possible {
        let Value::Of(source) = source else { continue };
        match (ranks[reader], ranks[source]) {
            (Some(reader), Some(source)) => fixed &= source < reader,
            _ => fixed = false,
        }
    }
    if let Some(unused) = (0..slots).find(|&slot| !owners[slot].is_empty() && ranks[slot].is_none())
    {
        let problem = "not every network reads what it gives: name it in `inputs` of a later element, or \
                       remove it";
        return Err(Invalid::new(owners[unused], problem));
    }
    Ok(fixed.then(|| ranks.into_iter().take(slots).map(Option::unwrap_or_default).collect()))
}

impl Wires {
    fn connect<'a>(&mut self, program: &'a Program, owners: &mut [&'a str]) -> Vec<Value> {
        let mut taps: Vec<Vec<Value>> = vec![vec![Value::Input]; program.taps];
        let mut current = vec![Value::Input];
        let (mut entered, mut before) = (current.clone(), current.clone());
        let mut joined: Vec<Value> = vec![];
        for step in &program.steps {
            match *step {
                Step::Input => taps[INPUT_TAP] = current.clone(),
                Step::Choose { .. } => {}
                Step::Enter => {
                    before = std::mem::replace(&mut entered, current.clone());
                }
                Step::Block { stage, index, .. } => {
                    let stage = &program.stages[stage];
                    if index == 0 && !stage.inputs.is_empty() {
                        current = stage.inputs.iter().flat_map(|&tap| taps[tap].clone()).collect();
                    }
                    let first = (stage.slot + index * stage.layers) as usize;
                    current = self.chain(first, stage.layers, current);
                    owners[first..first + stage.layers as usize].fill(&stage.place);
                }
                Step::Save { tap } => taps[tap] = current.clone(),
                Step::Edge { join, source, .. } => {
                    let join = &program.joins[join];
                    let slot = join.slot as usize + source;
                    let from = taps[join.sources[source]].clone();
                    let sum = join.slot as usize + join.sources.len();
                    // Both the op on the edge and the edge itself can be missing.
                    self.possible.extend(from.iter().flat_map(|&from| [(slot, from), (sum, from)]));
                    joined.push(Value::Of(slot));
                }
                Step::Join { join } => {
                    let join = &program.joins[join];
                    let slot = join.slot as usize + join.sources.len();
                    current.append(&mut joined);
                    self.certain[slot] = std::mem::replace(&mut current, vec![Value::Of(slot)]);
                    owners[slot] = &join.place;
                }
                Step::Cell { used } => {
                    let used = &program.uses[used];
                    let cell = &program.cells[used.cell];
                    let inputs: Vec<Vec<Value>> = match used.inputs.as_slice() {
                        [] if cell.inputs == 2 => vec![before.clone(), current],
                        [] => vec![current],
                        taps_read => taps_read.iter().map(|&tap| taps[tap].clone()).collect(),
                    };
                    current = self.cell(cell, used, inputs);
                }
            }
        }
        current
    }

    /// Layers in a row, and what they give.
    fn chain(&mut self, first: usize, layers: u32, inputs: Vec<Value>) -> Vec<Value> {
        let mut current = inputs;
        for slot in first..first + layers as usize {
            self.certain[slot] = std::mem::replace(&mut current, vec![Value::Of(slot)]);
        }
        current
    }

    fn cell(&mut self, cell: &Cell, used: &CellUse, inputs: Vec<Vec<Value>>) -> Vec<Value> {
        let mut values = inputs;
        if cell.adapt.is_some() {
            for (slot, value) in (used.slot as usize..).zip(&mut values) {
                self.certain[slot] = std::mem::replace(value, vec![Value::Of(slot)]);
            }
        }
        for (index, node) in cell.nodes.iter().enumerate() {
            let mut parts = vec![];
            for edge in 0..node.edges.len() {
                let first = cell.edge_slot(used.slot, index, edge) as usize;
                let from = match node.sources.as_slice() {
                    [only] => values[only[edge]].clone(),
                    several => {
                        let from = several.iter().flat_map(|set| values[set[edge]].clone());
                        self.possible.extend(from.map(|from| (first, from)));
                        vec![]
                    }
                };
                parts.extend(self.chain(first, cell.layers, from));
            }
            if node.summed {
                let slot = cell.edge_slot(used.slot, index, node.edges.len()) as usize;
                self.certain[slot] = std::mem::replace(&mut parts, vec![Value::Of(slot)]);
            }
            values.push(parts);
        }
        let nodes = &values[cell.inputs..];
        if cell.concat && nodes.len() > 1 {
            let slot = cell.output_slot(used.slot) as usize;
            self.certain[slot] = nodes.concat();
            return vec![Value::Of(slot)];
        }
        nodes.last().cloned().unwrap_or_default()
    }
}
