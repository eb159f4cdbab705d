//! From a program to tables: what each option of each gene adds to a network, in each state that matters.
//!
//! A state is what later genes depend on: the shape of the current value, named values, and choices that are still
//! needed. Genotypes that agree in it share everything after it, so a space of 10^20 networks has a few thousand states.

use std::collections::HashMap;

use super::ops::Ops;
use super::program::{Program, Step};
use super::run::{Builder, Call, INACTIVE, Problem, Run, State, Wire};
use crate::Invalid;
use crate::primitive::Cost;
use crate::tensor::TensorShape;

/// The most transitions: 16 MiB of look-ups.
const MAX_TRANSITIONS: usize = 1 << 19;

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
    known: HashMap<Vec<(u32, bool)>, u32>,
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

    fn add(&mut self, made: &[Made], ops: &Ops) -> u32 {
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
struct Made {
    slot: u32,
    key: u32,
    merge: bool,
}

/// A builder that records keys.
struct Recorder<'a> {
    ops: &'a mut Ops,
    made: Vec<Made>,
}

impl Builder for Recorder<'_> {
    fn shape(&mut self, call: &Call<'_>) -> Result<TensorShape, Problem> {
        Ok(self.ops.plan(call)?.output)
    }

    fn add(&mut self, slot: u32, call: &Call<'_>) -> Result<Wire, Problem> {
        let planned = self.ops.plan(call)?;
        self.made.extend(planned.merges.iter().map(|&key| Made { slot, key, merge: true }));
        self.made.push(Made { slot, key: planned.key, merge: false });
        Ok(Wire { shape: planned.output, node: 0 })
    }

    fn input(&mut self, _shape: TensorShape) -> Result<(), Problem> {
        Ok(())
    }
}

/// A compiled program.
#[derive(Debug)]
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
}

/// Compiles a program.
///
/// # Errors
/// When the definition is wrong, too large, or has no network.
pub(super) fn compile(program: &Program, ops: &mut Ops, ordered: bool) -> Result<Tables, Invalid> {
    let mut compiler = Compiler {
        program,
        ops,
        ordered,
        tables: Tables {
            transitions: vec![],
            slots: vec![],
            parts: Parts::default(),
            begins: vec![],
            base: 0,
            base_slots: vec![],
            ways: vec![],
            weights: vec![],
        },
        options: vec![None; program.genes.len()],
        refused: HashMap::new(),
    };
    compiler.all().map_err(Problem::invalid)?;
    Ok(compiler.tables)
}

struct Compiler<'a> {
    program: &'a Program,
    ops: &'a mut Ops,
    /// Whether slots are not needed.
    ordered: bool,
    tables: Tables,
    options: Vec<Option<u8>>,
    /// Why an option of a gene was not possible, the first time.
    refused: HashMap<(usize, u8), Invalid>,
}

impl Compiler<'_> {
    fn all(&mut self) -> Result<(), Problem> {
        let genes: Vec<usize> = (0..self.program.steps.len())
            .filter(|&step| self.program.steps[step].gene().is_some())
            .collect();
        let mut state = State::new(self.program);
        let (ends, made) = self.without_genes(0, &genes, &mut state)?;
        debug_assert_eq!(Some(&ends), genes.first().or(Some(&self.program.steps.len())));
        self.tables.base = self.tables.parts.add(&made, self.ops);
        self.tables.base_slots = slots_of(&made);
        let mut states = vec![state];
        for gene in 0..self.program.genes.len() {
            self.tables.begins.push(index(self.tables.transitions.len()));
            states = self.gene(gene, &genes, &states)?;
        }
        self.tables.count(self.program);
        self.check_options()?;
        self.forget_tried();
        Ok(())
    }

    /// Forgets keys that were only tried.
    fn forget_tried(&mut self) {
        let mut used = vec![false; self.ops.keys.len()];
        let parts = &mut self.tables.parts;
        let mut mark = |part: u32| {
            parts.keys_of(part).for_each(|at| used[parts.keys[at] as usize] = true);
        };
        mark(self.tables.base);
        let possible = self.tables.transitions.iter().filter(|one| one.next != NONE);
        possible.for_each(|transition| mark(transition.part));
        let numbers = self.ops.retain(&used);
        // Keys of parts that lead nowhere are never read.
        parts.keys.iter_mut().for_each(|key| *key = numbers[*key as usize]);
        parts.known.clear();
    }

    /// Runs the steps up to the next one that reads a gene.
    fn without_genes(
        &mut self,
        from: usize,
        genes: &[usize],
        state: &mut State,
    ) -> Result<(usize, Vec<Made>), Problem> {
        let mut recorder = Recorder { ops: self.ops, made: vec![] };
        let mut index = from;
        while index < self.program.steps.len() && !genes.contains(&index) {
            step(self.program, &mut recorder, index, state, &self.options)?;
            index += 1;
        }
        if index == self.program.steps.len() {
            state.keep_cells();
        }
        Ok((index, recorder.made))
    }

    /// All transitions of one gene, and the states that follow.
    fn gene(
        &mut self,
        gene: usize,
        steps: &[usize],
        states: &[State],
    ) -> Result<Vec<State>, Problem> {
        let def = &self.program.genes[gene];
        let count = def.options.len() + usize::from(def.optional);
        let begin = self.tables.transitions.len();
        let end = begin + states.len() * count;
        let last = gene + 1 == self.program.genes.len();
        let width = if last { 0 } else { row(self.program, gene + 1) };
        let mut numbers: HashMap<State, u32> = HashMap::new();
        let mut next: Vec<State> = vec![];
        if end > MAX_TRANSITIONS {
            return Err(too_large(def.name.as_str()));
        }
        for state in states {
            for number in 0..count {
                let option = match number == def.options.len() {
                    true => INACTIVE,
                    false => u8::try_from(number).unwrap_or(INACTIVE),
                };
                let mut after = state.clone();
                let made = match def.allowed.get(number) {
                    Some(false) => Err(Problem::Impossible(Invalid::new("", "it is excluded"))),
                    _ => self.option(gene, option, steps, &mut after),
                };
                let made = match made {
                    Ok(made) => made,
                    Err(Problem::Impossible(problem)) => {
                        self.refused.entry((gene, option)).or_insert(problem);
                        self.push(Transition { next: NONE, part: 0 }, vec![]);
                        continue;
                    }
                    Err(problem) => return Err(problem),
                };
                let part = self.tables.parts.add(&made, self.ops);
                let next_state = if last {
                    END
                } else {
                    let number = *numbers.entry(after).or_insert_with_key(|after| {
                        next.push(after.clone());
                        index(next.len() - 1)
                    });
                    index(end).saturating_add(number.saturating_mul(width))
                };
                self.push(Transition { next: next_state, part }, slots_of(&made));
            }
        }
        Ok(next)
    }

    fn push(&mut self, transition: Transition, slots: Vec<u32>) {
        self.tables.transitions.push(transition);
        if !self.ordered {
            self.tables.slots.push(slots);
        }
    }

    /// What an option adds, and the state after it.
    fn option(
        &mut self,
        gene: usize,
        option: u8,
        steps: &[usize],
        state: &mut State,
    ) -> Result<Vec<Made>, Problem> {
        let program = self.program;
        if let Some(at) = gene.checked_sub(program.first_cell_gene()) {
            let mut recorder = Recorder { ops: self.ops, made: vec![] };
            let mut run = Run { program, builder: &mut recorder };
            run.cell_gene(program.cell_genes[at], option, state)?;
            return Ok(recorder.made);
        }
        self.options[gene] = Some(option);
        let mut recorder = Recorder { ops: self.ops, made: vec![] };
        let done = step(program, &mut recorder, steps[gene], state, &self.options);
        let mut made = recorder.made;
        self.options[gene] = None;
        done?;
        made.extend(self.without_genes(steps[gene] + 1, steps, state)?.1);
        Ok(made)
    }

    /// Each option of each gene is possible in some network, unless it is excluded.
    fn check_options(&self) -> Result<(), Problem> {
        let mut never = None;
        for (gene, def) in self.program.genes.iter().enumerate() {
            let width = row(self.program, gene) as usize;
            let ways = &self.tables.ways[self.tables.transitions_of(gene)];
            for (number, label) in (0u8..).zip(&def.options) {
                let option = usize::from(number);
                let mut of_option = ways.iter().skip(option).step_by(width);
                if !def.allowed[option] || of_option.any(|&ways| ways > 0) {
                    continue;
                }
                let problem = |why: &str| {
                    let problem = format!("`{label}` is possible in no network: {why}");
                    Problem::Definition(Invalid::new(def.place.clone(), problem))
                };
                match self.refused.get(&(gene, number)) {
                    Some(why) => return Err(problem(&why.to_string())),
                    None => never = never.or(Some(problem("nothing that can follow is possible"))),
                }
            }
        }
        never.map_or(Ok(()), Err)
    }
}

impl Tables {
    /// The transitions of all states of a gene.
    pub(super) fn transitions_of(&self, gene: usize) -> std::ops::Range<usize> {
        let end = self.begins.get(gene + 1).map_or(self.transitions.len(), |&next| next as usize);
        self.begins[gene] as usize..end
    }

    /// Counts genotypes from the last gene to the first, and closes what leads nowhere.
    fn count(&mut self, program: &Program) {
        self.ways = vec![0; self.transitions.len()];
        self.weights = vec![0.0; self.transitions.len()];
        for gene in (0..self.begins.len()).rev() {
            let width = match gene + 1 < self.begins.len() {
                true => row(program, gene + 1) as usize,
                false => 0,
            };
            for at in self.transitions_of(gene) {
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
        }
    }
}

/// The largest number if the sum is larger.
pub(super) fn sum(ways: &[u128]) -> u128 {
    ways.iter().fold(0, |sum, &ways| sum.saturating_add(ways))
}

/// Runs a step, with the genes of cells left open.
fn step(
    program: &Program,
    recorder: &mut Recorder<'_>,
    index: usize,
    state: &mut State,
    options: &[Option<u8>],
) -> Result<(), Problem> {
    let mut run = Run { program, builder: recorder };
    match program.steps[index] {
        Step::Cell { used } => run.open(used, state)?,
        _ => run.step(index, state, options)?,
    }
    state.keep(&program.live[index]);
    Ok(())
}

/// The number of transitions of a state of a gene.
pub(super) fn row(program: &Program, gene: usize) -> u32 {
    let gene = &program.genes[gene];
    index(gene.options.len() + usize::from(gene.optional))
}

fn slots_of(made: &[Made]) -> Vec<u32> {
    made.iter().map(|made| made.slot).collect()
}

fn index(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn too_large(gene: &str) -> Problem {
    let problem = format!(
        "it is too large to be compiled: at `{gene}` it has more than {MAX_TRANSITIONS} options in all its \
         states. Give choices that decide shapes fewer values, or make it two spaces"
    );
    Problem::Definition(Invalid::new("", problem))
}
