//! The tables of a compiled space: parts of networks, transitions, and the number of genotypes after each.

use std::collections::{HashMap, HashSet};

use super::ops::Ops;
use super::program::Program;
use crate::primitive::Cost;

/// Where no option leads on.
pub(super) const NONE: u32 = u32::MAX;

/// After the last gene.
pub(super) const END: u32 = u32::MAX - 1;

/// One option in one state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Transition {
    /// The first transition of the next state, [`END`], or [`NONE`] if the option is not possible.
    pub(super) next: u32,
    pub(super) part: u32,
}

/// Parts of networks: what options add. Each occurs once.
#[derive(Debug, Default)]
pub(super) struct Parts {
    pub(super) keys: Vec<u32>,
    pub(super) ops: Vec<(u32, u32)>,
    pub(super) parts: Vec<PartData>,
    pub(super) known: HashMap<Vec<(u32, bool)>, u32>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct PartData {
    /// Ends of its keys and ops; they begin where those of the part before end.
    pub(super) keys_end: u32,
    pub(super) ops_end: u32,
    pub(super) layers: u32,
    pub(super) merges: u32,
    pub(super) cost: Cost,
}

impl Parts {
    /// The places of the keys of a part.
    pub(super) fn keys_of(&self, part: u32) -> std::ops::Range<usize> {
        let before = part.checked_sub(1).map_or(0, |before| self.parts[before as usize].keys_end);
        before as usize..self.parts[part as usize].keys_end as usize
    }

    pub(super) fn add(&mut self, made: &[Made], ops: &Ops) -> u32 {
        let signature: Vec<(u32, bool)> = made.iter().map(|made| (made.key, made.merge)).collect();
        if let Some(&known) = self.known.get(&signature) {
            return known;
        }
        let mut cost = Cost::default();
        let mut counts: Vec<(u32, u32)> = Vec::new();
        for made in made {
            let key = &ops.keys[made.key as usize];
            cost += key.cost;
            self.keys.push(made.key);
            if made.merge {
                continue;
            }
            match counts.iter_mut().find(|(op, _)| *op == key.op_index) {
                Some((_, count)) => *count += 1,
                None => counts.push((key.op_index, 1)),
            }
        }
        let layers: u32 = counts.iter().map(|(_, count)| count).sum();
        self.ops.extend(counts);
        let part = index(self.parts.len());
        self.parts.push(PartData {
            keys_end: index(self.keys.len()),
            ops_end: index(self.ops.len()),
            layers,
            merges: index(made.len()) - layers,
            cost,
        });
        self.known.insert(signature, part);
        part
    }
}

/// An op of a part, at a slot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Made {
    pub(super) slot: u32,
    pub(super) key: u32,
    pub(super) merge: bool,
}

/// A compiled program.
#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) transitions: Vec<Transition>,
    /// The slots of the keys of each transition's part; empty if every part has its keys in running order, and parts
    /// follow one another in it.
    pub(super) slots: Vec<Vec<u32>>,
    pub(super) parts: Parts,
    /// The first transition of the first state of each gene.
    pub(super) begins: Vec<u32>,
    /// The part that every network has.
    pub(super) base: u32,
    pub(super) base_slots: Vec<u32>,
    /// The number of genotypes after each transition; the largest number if there are more.
    pub(super) ways: Vec<u128>,
    /// The same as a floating-point number.
    pub(super) weights: Vec<f64>,
    /// Transitions that give what another option of their state gives, with the number of that option.
    pub(super) twins: HashMap<usize, usize>,
}

impl Tables {
    /// The transitions of all states of a gene.
    pub(super) fn transitions_of(&self, gene: usize) -> std::ops::Range<usize> {
        let end = self.begins.get(gene + 1).map_or(self.transitions.len(), |&next| next as usize);
        self.begins[gene] as usize..end
    }

    /// Counts genotypes from the last gene to the first. What leads nowhere is closed, and so is an option that gives what
    /// an earlier option of the same state gives: each network is written in one way.
    pub(super) fn count(&mut self, program: &Program, close_twins: bool) {
        self.ways = vec![0; self.transitions.len()];
        self.weights = vec![0.0; self.transitions.len()];
        // States that lead to the same networks have the same class.
        let mut classes: HashMap<Vec<Option<(u32, u32)>>, u32> = HashMap::new();
        let mut class_of: HashMap<u32, u32> = HashMap::new();
        for gene in (0..self.begins.len()).rev() {
            let width = row(program, gene) as usize;
            let after = match gene + 1 < self.begins.len() {
                true => row(program, gene + 1) as usize,
                false => 0,
            };
            for begin in self.transitions_of(gene).step_by(width) {
                for at in begin..begin + width {
                    self.count_one(at, after);
                }
                let class = |transition: &Transition| match transition.next {
                    NONE => None,
                    END => Some((transition.part, END)),
                    next => Some((transition.part, class_of[&next])),
                };
                let mut given: Vec<_> =
                    self.transitions[begin..begin + width].iter().map(class).collect();
                if close_twins && !program.decides_wires(gene) {
                    self.close_twins(begin, &mut given);
                }
                let number = index(classes.len());
                class_of.insert(index(begin), *classes.entry(given).or_insert(number));
            }
        }
    }

    /// Closes what a restriction excludes.
    pub(super) fn exclude(&mut self, program: &Program) {
        for (gene, def) in program.genes.iter().enumerate() {
            let range = self.transitions_of(gene);
            let columns = (0..row(program, gene) as usize).cycle();
            for (transition, column) in self.transitions[range].iter_mut().zip(columns) {
                if def.allowed.get(column) == Some(&false) {
                    transition.next = NONE;
                }
            }
        }
    }

    /// The transitions of all genotypes.
    pub(super) fn reachable(&self, program: &Program) -> Vec<usize> {
        let mut states = HashSet::from([0u32]);
        let mut reachable = vec![];
        for gene in 0..self.begins.len() {
            let width = row(program, gene) as usize;
            for begin in self.transitions_of(gene).step_by(width) {
                if !states.contains(&index(begin)) {
                    continue;
                }
                let possible =
                    (begin..begin + width).filter(|&at| self.transitions[at].next != NONE);
                for at in possible {
                    reachable.push(at);
                    states.insert(self.transitions[at].next);
                }
            }
        }
        reachable
    }

    fn count_one(&mut self, at: usize, width: usize) {
        (self.ways[at], self.weights[at]) = match self.transitions[at].next {
            NONE => (0, 0.0),
            END => (1, 1.0),
            next => {
                let row = next as usize..next as usize + width;
                (sum(&self.ways[row.clone()]), self.weights[row].iter().sum())
            }
        };
        if self.ways[at] == 0 {
            self.transitions[at].next = NONE;
        }
    }

    fn close_twins(&mut self, begin: usize, given: &mut [Option<(u32, u32)>]) {
        for column in 1..given.len() {
            let twin = given[column]
                .and_then(|what| given[..column].iter().position(|other| *other == Some(what)));
            if let Some(twin) = twin {
                given[column] = None;
                let at = begin + column;
                self.transitions[at].next = NONE;
                (self.ways[at], self.weights[at]) = (0, 0.0);
                self.twins.insert(at, twin);
            }
        }
    }
}

/// The largest number if the sum is larger.
pub(super) fn sum(ways: &[u128]) -> u128 {
    ways.iter().fold(0, |sum, &ways| sum.saturating_add(ways))
}

/// The number of transitions of a state of a gene.
pub(super) fn row(program: &Program, gene: usize) -> u32 {
    let gene = &program.genes[gene];
    index(gene.options.len() + usize::from(gene.optional))
}

pub(super) fn index(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
