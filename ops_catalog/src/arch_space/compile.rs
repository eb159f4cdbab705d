//! From a program to tables: what each option of each gene adds to a network, in each state that matters.
//!
//! A state is what later genes depend on: the shape of the current value, named values, and choices that are still
//! needed. Genotypes that agree in it share everything after it, so a space of 10^20 networks has a few thousand states.

use std::collections::{BTreeMap, HashMap};

use super::ops::Ops;
use super::program::{Program, Step};
use super::run::{Builder, Call, INACTIVE, Problem, Run, State, Wire};
use super::tables::{END, Made, NONE, Tables, Transition, index, row};
use crate::Invalid;
use crate::tensor::TensorShape;

/// The most transitions: 16 MiB of look-ups.
const MAX_TRANSITIONS: usize = 1 << 19;

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

/// Compiles a program.
///
/// # Errors
/// When the definition is wrong, too large, or has no network.
pub(super) fn compile(program: &Program, ops: &mut Ops, ordered: bool) -> Result<Tables, Invalid> {
    let mut compiler = Compiler {
        program,
        ops,
        ordered,
        tables: Tables::default(),
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
        self.tables.count(self.program, true);
        self.check_options()?;
        if self.program.genes.iter().any(|gene| gene.allowed.contains(&false)) {
            self.tables.exclude(self.program);
            self.tables.count(self.program, false);
        }
        self.forget_tried();
        Ok(())
    }

    /// Forgets keys that were only tried, or belong to excluded options.
    fn forget_tried(&mut self) {
        let reachable = self.tables.reachable(self.program);
        let mut used = vec![false; self.ops.keys.len()];
        let parts = &mut self.tables.parts;
        let mut mark = |part: u32| {
            parts.keys_of(part).for_each(|at| used[parts.keys[at] as usize] = true);
        };
        mark(self.tables.base);
        reachable.into_iter().for_each(|at| mark(self.tables.transitions[at].part));
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
                let made = self.option(gene, option, steps, &mut after);
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

    /// Each option is possible in some network: of each choice, of each stage, of the edges of each cell.
    fn check_options(&self) -> Result<(), Problem> {
        // By place in the definition, and by option: whether it is possible, or why not.
        let mut found: BTreeMap<(&str, u8), (usize, Option<String>)> = BTreeMap::new();
        for (gene, def) in self.program.genes.iter().enumerate() {
            let options = u8::try_from(def.options.len()).unwrap_or(INACTIVE);
            for option in 0..options {
                let why = self.why_never(gene, option);
                let known = found.entry((&def.place, option)).or_insert((gene, why.clone()));
                if known.1.is_some() {
                    known.1 = why;
                }
            }
        }
        let never = found.into_iter().filter_map(|((place, option), (gene, why))| {
            let label = &self.program.genes[gene].options[usize::from(option)];
            let problem = format!("`{label}` is possible in no network: {}", why?);
            Some((gene, Invalid::new(place, problem)))
        });
        // The first mistake makes others.
        match never.min_by_key(|(gene, _)| *gene) {
            Some((_, problem)) => Err(Problem::Definition(problem)),
            None => Ok(()),
        }
    }

    /// Why an option of a gene is never possible.
    fn why_never(&self, gene: usize, option: u8) -> Option<String> {
        let def = &self.program.genes[gene];
        let width = row(self.program, gene) as usize;
        let mut of_option =
            self.tables.transitions_of(gene).skip(usize::from(option)).step_by(width);
        if of_option.clone().any(|at| self.tables.ways[at] > 0) {
            return None;
        }
        if let Some(twin) = of_option.find_map(|at| self.tables.twins.get(&at)) {
            let twin = def.options.get(*twin).map_or(".", String::as_str);
            return Some(format!("it gives the same networks as `{twin}`"));
        }
        if let Some(refused) = self.refused.get(&(gene, option)) {
            return Some(refused.to_string());
        }
        let later = self.refused.iter().filter(|((other, _), _)| *other > gene);
        let later = later.min_by_key(|(place, _)| **place).map(|(_, problem)| problem.to_string());
        Some(format!("nothing that can follow it is: {}", later.unwrap_or_default()))
    }
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

fn slots_of(made: &[Made]) -> Vec<u32> {
    made.iter().map(|made| made.slot).collect()
}

fn too_large(gene: &str) -> Problem {
    let problem = format!(
        "it is too large to be compiled: at `{gene}` it has more than {MAX_TRANSITIONS} options in all its \
         states. Give choices that decide shapes fewer values, or make it two spaces"
    );
    Problem::Definition(Invalid::new("", problem))
}
