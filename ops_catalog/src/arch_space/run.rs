//! The interpreter of programs: one step at a time, from state to state. What becomes of the ops is up to a
//! [`Builder`], so that costs, networks and genotypes follow from the same rules.

mod cells;

use super::amount::{Ratio, Term, Values};
use super::program::{Alternative, Depth, INPUT_TAP, Live, OpName, Piece, Program, Stage, Step};
use crate::Invalid;
use crate::key::Shape;
use crate::spec::Merge;
use crate::tensor::{TensorShape, concatenated};

/// The option number of an inactive gene.
pub(super) const INACTIVE: u8 = 36;

/// Why a step does not lead to a network.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Problem {
    /// The definition is wrong, whatever the choice.
    Definition(Invalid),
    /// This choice does not lead to a network.
    Impossible(Invalid),
    /// The step reads a gene whose option is not known yet.
    Unknown(usize),
}

impl Problem {
    pub(super) fn within(self, outer: impl std::fmt::Display) -> Problem {
        match self {
            Problem::Definition(e) => Problem::Definition(e.within(outer)),
            Problem::Impossible(e) => Problem::Impossible(e.within(outer)),
            unknown @ Problem::Unknown(_) => unknown,
        }
    }

    pub(super) fn invalid(self) -> Invalid {
        match self {
            Problem::Definition(e) | Problem::Impossible(e) => e,
            Problem::Unknown(gene) => Invalid::new("", format!("gene {} has no option", gene + 1)),
        }
    }
}

/// A value between ops: its shape, and the node that gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Wire {
    pub(super) shape: TensorShape,
    /// In the numbering of the builder; `-1` is the network's input.
    pub(super) node: i64,
}

/// An op that a network has.
pub(super) struct Call<'a> {
    /// Its name or an alias.
    pub(super) op: &'a str,
    pub(super) c_out: u32,
    pub(super) stride: u32,
    pub(super) merge: Merge,
    pub(super) inputs: &'a [Wire],
}

/// What becomes of the ops of a network.
pub(super) trait Builder {
    /// The output of an op, which is not part of the network yet.
    fn shape(&mut self, call: &Call<'_>) -> Result<TensorShape, Problem>;

    /// Adds an op at a slot, and returns its node.
    fn add(&mut self, slot: u32, call: &Call<'_>) -> Result<Wire, Problem>;

    /// The network's input.
    fn input(&mut self, shape: TensorShape) -> Result<(), Problem>;
}

/// The use of a cell whose genes are read later.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Open {
    pub(super) used: usize,
    pub(super) c_out: u32,
    pub(super) stride: u32,
    /// Shape and number of parts of each value: inputs, then nodes.
    pub(super) values: Vec<(TensorShape, usize)>,
}

/// Everything that later steps depend on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct State {
    /// Number of the value of each choice.
    choices: Vec<Option<u8>>,
    pub(super) current: Option<Wire>,
    /// The value before the last element, and the one before that.
    entered: Option<Wire>,
    before: Option<Wire>,
    taps: Vec<Option<Wire>>,
    /// Whether a block of the current stage is absent.
    ended: bool,
    /// What optional edges bring.
    joined: Vec<Wire>,
    pub(super) open: Vec<Open>,
    /// The set of inputs that was chosen for the node of a cell.
    picked: Option<u8>,
}

impl State {
    pub(super) fn new(program: &Program) -> State {
        State {
            choices: vec![None; program.choices.len()],
            current: None,
            entered: None,
            before: None,
            taps: vec![None; program.taps],
            ended: false,
            joined: Vec::new(),
            open: Vec::new(),
            picked: None,
        }
    }

    /// Forgets what no later step needs.
    pub(super) fn keep(&mut self, live: &Live) {
        let choices = self.choices.iter_mut().zip(&live.choices);
        choices.filter(|(_, live)| !**live).for_each(|(choice, _)| *choice = None);
        let taps = self.taps.iter_mut().zip(&live.taps);
        taps.filter(|(_, live)| !**live).for_each(|(tap, _)| *tap = None);
        if !live.before {
            (self.entered, self.before) = (None, None);
        }
    }

    /// Forgets everything but what the genes of cells need.
    pub(super) fn keep_cells(&mut self) {
        self.current = None;
        self.taps.fill(None);
        (self.entered, self.before) = (None, None);
    }
}

/// Runs a program on a builder.
pub(super) struct Run<'a> {
    pub(super) program: &'a Program,
    pub(super) builder: &'a mut dyn Builder,
}

impl Run<'_> {
    /// Runs a step. `options` has the option of each gene that is known.
    ///
    /// # Errors
    /// When the choice is not possible in this state, or a gene is not known.
    pub(super) fn step(
        &mut self,
        index: usize,
        state: &mut State,
        options: &[Option<u8>],
    ) -> Result<(), Problem> {
        let program = self.program;
        let step = &program.steps[index];
        let option = match step.gene() {
            Some(gene) => Some(options[gene].ok_or(Problem::Unknown(gene))?),
            None => None,
        };
        match *step {
            Step::Input => self.input(state),
            Step::Choose { choice, .. } => {
                state.choices[choice] = option;
                Ok(())
            }
            Step::Enter => {
                state.before = state.entered;
                state.entered = state.current;
                state.ended = false;
                Ok(())
            }
            Step::Block { stage, index, .. } => {
                let stage = &program.stages[stage];
                self.block(stage, index, option, state).map_err(|e| e.within(&stage.place))
            }
            Step::Save { tap } => {
                state.taps[tap] = state.current;
                Ok(())
            }
            Step::Edge { join, source, .. } => {
                let place = &program.joins[join].place;
                self.edge(join, source, option, state).map_err(|e| e.within(place))
            }
            Step::Join { join } => {
                let place = &program.joins[join].place;
                self.join(join, state).map_err(|e| e.within(place))
            }
            Step::Cell { used } => {
                let place = &program.uses[used].place;
                self.cell(used, state, options).map_err(|e| e.within(place))
            }
        }
    }

    fn input(&mut self, state: &mut State) -> Result<(), Problem> {
        let none = Wire { shape: TensorShape::Map { n: 1, c: 1, h: 1, w: 1 }, node: -1 };
        let size = |index: usize, field: &str| {
            let size = self.whole(&self.program.input[index], state, &none, 1);
            size.map_err(|e| e.within(format!("input.{field}")))
        };
        let (n, c, h, w) = (size(0, "n")?, size(1, "c")?, size(2, "h")?, size(3, "w")?);
        let input = crate::spec::Input { n, c, h, w };
        input.check().map_err(Problem::Definition)?;
        self.builder.input(input.shape())?;
        let wire = Wire { shape: input.shape(), node: -1 };
        state.current = Some(wire);
        state.taps[INPUT_TAP] = Some(wire);
        Ok(())
    }

    /// The values that names stand for, or the current one.
    fn read(&self, taps: &[usize], state: &State) -> Vec<Wire> {
        let named = taps.iter().filter_map(|&tap| state.taps[tap]);
        match taps {
            [] => state.current.into_iter().collect(),
            _ => named.collect(),
        }
    }

    fn block(
        &mut self,
        stage: &Stage,
        index: u32,
        option: Option<u8>,
        state: &mut State,
    ) -> Result<(), Problem> {
        let present = match &stage.depth {
            Depth::Fixed(_) => true,
            Depth::Forced { blocks, .. } => {
                let values =
                    Values { choice: &|c| self.choice(state, c), c_in: 1, c_out: 1, stride: 1 };
                index < blocks.blocks(&values).map_err(Problem::Definition)?
            }
            Depth::Listed(depths) => {
                let absent = option == Some(INACTIVE);
                if absent && !state.ended && !depths.contains(&index) {
                    let depths: Vec<String> = depths.iter().map(u32::to_string).collect();
                    return Err(impossible(format!(
                        "it would have {index} blocks, and it has {}",
                        depths.join(", ")
                    )));
                }
                if !absent && state.ended {
                    let problem = format!("block {} stands after an absent one", index + 1);
                    return Err(impossible(format!("{problem}: `.` belongs here")));
                }
                state.ended = absent;
                !absent
            }
        };
        match (present, option) {
            (false, None | Some(INACTIVE)) => return Ok(()),
            (true, Some(INACTIVE)) => {
                let problem = format!("block {} is part of the network here", index + 1);
                return Err(impossible(format!("{problem}: `.` does not belong here")));
            }
            (false, Some(_)) => {
                let problem = format!("block {} is no part of the network here", index + 1);
                return Err(impossible(format!("{problem}: `.` belongs here")));
            }
            (true, _) => {}
        }
        let chosen = &stage.options[usize::from(option.unwrap_or(0))];
        let first = index == 0;
        let inputs = self.read(if first { &stage.inputs } else { &[] }, state);
        let merge = if first { stage.merge } else { Merge::Add };
        let merged = merged_wire(&inputs, merge)?;
        let stride = if first { self.whole(&stage.stride, state, &merged, 1)? } else { 1 };
        let c_out = match &stage.c_out {
            Some(c_out) => Some(self.channels(c_out, state, &merged, 1)?),
            None => None,
        };
        let slot = stage.slot + index * stage.layers;
        let output = self.layers(chosen, inputs, merge, (c_out, stride), slot, state)?;
        state.current = output.first().copied();
        Ok(())
    }

    /// The layers of an option, and what they give: one value, or the inputs if there is no layer.
    fn layers(
        &mut self,
        option: &Alternative,
        mut inputs: Vec<Wire>,
        mut merge: Merge,
        (c_out, stride): (Option<u32>, u32),
        slot: u32,
        state: &State,
    ) -> Result<Vec<Wire>, Problem> {
        let block = merged_wire(&inputs, merge)?;
        let stride = match &option.stride {
            Some(term) => self.term(term, state, &block, 1, stride, Term::whole)?,
            None => stride,
        };
        let c_out = match &option.c_out {
            Some(term) => self.channels(term, state, &block, 1)?,
            // A layer without channels of its own has those of its option or its stage.
            None => c_out.unwrap_or(1),
        };
        for (place, layer) in (0u32..).zip(&option.layers) {
            let merged = merged_wire(&inputs, merge)?;
            let own_stride = match &layer.stride {
                Some(term) => self.term(term, state, &merged, 1, stride, Term::whole)?,
                None if place == 0 => stride,
                None => 1,
            };
            let own_c_out = match &layer.c_out {
                Some(term) => self.channels(term, state, &merged, c_out)?,
                None => c_out,
            };
            let changes = own_stride != 1 || own_c_out != merged.shape.channels();
            let op = match &layer.changes_shape {
                Some(other) if changes => self.name(other, state),
                _ => self.name(&layer.op, state),
            };
            let call =
                Call { op: &op, c_out: own_c_out, stride: own_stride, merge, inputs: &inputs };
            inputs = vec![self.builder.add(slot + place, &call)?];
            merge = Merge::Add;
        }
        Ok(inputs)
    }

    fn edge(
        &mut self,
        join: usize,
        source: usize,
        option: Option<u8>,
        state: &mut State,
    ) -> Result<(), Problem> {
        if option != Some(1) {
            return Ok(());
        }
        let join = &self.program.joins[join];
        let from = self.read(&join.sources[source..=source], state);
        let (Some(&from), Some(to)) = (from.first(), state.current) else { return Ok(()) };
        if from.shape == to.shape {
            state.joined.push(from);
            return Ok(());
        }
        let Some(through) = &join.through else {
            let problem =
                format!("{} and {} can't be added: give an op `through`", from.shape, to.shape);
            return Err(impossible(problem));
        };
        let op = self.name(through, state);
        let (stride, inputs) = (ratio(&from, &to), [from]);
        let c_out = to.shape.channels();
        let call = Call { op: &op, c_out, stride, merge: Merge::Add, inputs: &inputs };
        let slot = join.slot + u32::try_from(source).unwrap_or_default();
        let wire = self.builder.add(slot, &call)?;
        if wire.shape != to.shape {
            let problem =
                format!("{} and {} can't be added, also not through {op}", from.shape, to.shape);
            return Err(impossible(problem));
        }
        state.joined.push(wire);
        Ok(())
    }

    fn join(&mut self, join: usize, state: &mut State) -> Result<(), Problem> {
        let join = &self.program.joins[join];
        let joined = std::mem::take(&mut state.joined);
        if joined.is_empty() {
            return Ok(());
        }
        let inputs: Vec<Wire> = state.current.into_iter().chain(joined).collect();
        let slot = join.slot + u32::try_from(join.sources.len()).unwrap_or_default();
        state.current = Some(self.sum(&inputs, Merge::Add, slot)?);
        Ok(())
    }

    /// Several values as one.
    fn sum(&mut self, inputs: &[Wire], merge: Merge, slot: u32) -> Result<Wire, Problem> {
        let c_out = merged_wire(inputs, merge)?.shape.channels();
        let call = Call { op: "Identity", c_out, stride: 1, merge, inputs };
        self.builder.add(slot, &call)
    }

    fn choice(&self, state: &State, choice: usize) -> Option<Ratio> {
        let value = usize::from(state.choices[choice]?);
        self.program.choices[choice].values.get(value)?.number
    }

    fn term<T>(
        &self,
        term: &Term,
        state: &State,
        input: &Wire,
        c_out: u32,
        stride: u32,
        value: impl Fn(&Term, &Values<'_>) -> Result<T, Invalid>,
    ) -> Result<T, Problem> {
        let choice = |choice: usize| self.choice(state, choice);
        let values = Values { choice: &choice, c_in: input.shape.channels(), c_out, stride };
        value(term, &values).map_err(Problem::Impossible)
    }

    fn whole(&self, term: &Term, state: &State, input: &Wire, c_out: u32) -> Result<u32, Problem> {
        self.term(term, state, input, c_out, 1, Term::whole)
    }

    fn channels(
        &self,
        term: &Term,
        state: &State,
        input: &Wire,
        c_out: u32,
    ) -> Result<u32, Problem> {
        let divisor = self.program.divisor;
        self.term(term, state, input, c_out, 1, |term, values| term.channels(divisor, values))
    }

    fn name(&self, name: &OpName, state: &State) -> String {
        let text = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Choice(choice) => {
                let value = state.choices[*choice].map(usize::from);
                let value = value.and_then(|value| self.program.choices[*choice].values.get(value));
                value.map(|value| value.text.replace('.', "p")).unwrap_or_default()
            }
        };
        name.0.iter().map(text).collect()
    }
}

pub(super) fn impossible(problem: impl Into<String>) -> Problem {
    Problem::Impossible(Invalid::new("", problem))
}

/// What an op reads that merges these values.
fn merged_wire(inputs: &[Wire], merge: Merge) -> Result<Wire, Problem> {
    let first = inputs.first().copied();
    let first = first.ok_or_else(|| impossible("nothing is there to be read"))?;
    match merge {
        Merge::Concat if inputs.len() > 1 => {
            let shapes: Vec<TensorShape> = inputs.iter().map(|wire| wire.shape).collect();
            let shape = concatenated(&shapes).map_err(Problem::Impossible)?;
            Ok(Wire { shape, ..first })
        }
        _ => Ok(first),
    }
}

/// How many times larger a map is than another one.
fn ratio(from: &Wire, to: &Wire) -> u32 {
    let height = |wire: &Wire| wire.shape.rows().0;
    height(from).div_ceil(height(to)).clamp(1, Shape::MAX_EXTENT)
}
