//! From networks to genotypes: the program is run with every option that fits the network.
//!
//! A node is known by what it computes: its op, its sizes, and the nodes that it reads. An option fits if the network
//! has the nodes that it adds, so most options of a gene are refused at once.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::ops::Ops;
use super::program::Program;
use super::run::{Builder, Call, INACTIVE, Problem, Run, State, Wire, impossible};
use super::space::{CompiledSpace, letter_of};
use crate::network::{NetworkNode, Value};
use crate::spec::{Input, Merge};
use crate::tensor::TensorShape;
use crate::{Invalid, Network};

/// The most steps that are tried. Networks of the built-in spaces need a few thousand.
const MAX_TRIES: usize = 200_000;

/// What a node computes.
type Meaning = u64;

const INPUT: Meaning = 0;

fn meaning(op: &str, sizes: (u32, u32), merge: Merge, mut inputs: Vec<Meaning>) -> Meaning {
    // The order of what is added makes no difference.
    if merge != Merge::Concat {
        inputs.sort_unstable();
    }
    let merge = (inputs.len() > 1).then_some(merge);
    let mut hasher = DefaultHasher::new();
    (op, sizes, merge, inputs).hash(&mut hasher);
    hasher.finish()
}

/// The meaning of each node of a network.
fn meanings(nodes: &[NetworkNode]) -> Vec<Meaning> {
    let mut found: Vec<Meaning> = Vec::with_capacity(nodes.len());
    for node in nodes {
        let of = |input: &Value| match *input {
            Value::Input => INPUT,
            Value::Of(index) => found[index],
        };
        let inputs = node.inputs.iter().map(of).collect();
        found.push(meaning(node.op.name(), (node.c_out, node.stride), node.merge, inputs));
    }
    found
}

/// The meanings of the nodes of a network and of their readers, near and far, in ascending order. The same for two
/// networks that differ only in the order of nodes and of added inputs. What each node computes is not enough: a value
/// can be read twice where another network has it twice.
fn surroundings(nodes: &[NetworkNode]) -> Vec<Meaning> {
    let mut colors = meanings(nodes);
    let mut distinct = 0;
    loop {
        let count = colors.iter().collect::<HashSet<_>>().len();
        if count == distinct {
            colors.sort_unstable();
            return colors;
        }
        distinct = count;
        let mut readers: Vec<Vec<(Meaning, usize)>> = vec![vec![]; nodes.len()];
        for (node, &color) in nodes.iter().zip(&colors) {
            for (position, input) in node.inputs.iter().enumerate() {
                if let Value::Of(input) = *input {
                    let position = if node.merge == Merge::Concat { position } else { 0 };
                    readers[input].push((color, position));
                }
            }
        }
        let mut next: Vec<Meaning> = Vec::with_capacity(nodes.len());
        for (index, (node, mut read_by)) in nodes.iter().zip(readers).enumerate() {
            read_by.sort_unstable();
            let of = |input: &Value| match *input {
                Value::Input => INPUT,
                Value::Of(input) => next[input],
            };
            let mut inputs: Vec<Meaning> = node.inputs.iter().map(of).collect();
            if node.merge != Merge::Concat {
                inputs.sort_unstable();
            }
            let mut hasher = DefaultHasher::new();
            (colors[index], read_by, inputs).hash(&mut hasher);
            next.push(hasher.finish());
        }
        colors = next;
    }
}

/// A builder that adds only what a network has.
struct Matcher<'a> {
    ops: &'a Ops,
    input: Input,
    /// How many nodes of each meaning were not found yet.
    left: HashMap<Meaning, usize>,
    /// The nodes that were found.
    found: Vec<Meaning>,
}

impl Matcher<'_> {
    fn undo(&mut self, found: usize) {
        for meaning in self.found.drain(found..) {
            *self.left.entry(meaning).or_default() += 1;
        }
    }

    fn of(&self, wire: &Wire) -> Meaning {
        usize::try_from(wire.node).map_or(INPUT, |node| self.found[node])
    }
}

impl Builder for Matcher<'_> {
    fn shape(&mut self, call: &Call<'_>) -> Result<TensorShape, Problem> {
        self.ops.output(call)
    }

    fn add(&mut self, _slot: u32, call: &Call<'_>) -> Result<Wire, Problem> {
        let op = self.ops.catalog().op(call.op).map_err(Problem::Definition)?;
        let inputs = call.inputs.iter().map(|wire| self.of(wire)).collect();
        let meaning = meaning(op.name(), (call.c_out, call.stride), call.merge, inputs);
        match self.left.get_mut(&meaning) {
            Some(left) if *left > 0 => *left -= 1,
            _ => return Err(impossible("the network has no such node")),
        }
        let shape = self.ops.output(call)?;
        self.found.push(meaning);
        let node = i64::try_from(self.found.len()).unwrap_or(i64::MAX) - 1;
        Ok(Wire { shape, node })
    }

    fn input(&mut self, shape: TensorShape) -> Result<(), Problem> {
        match shape == self.input.shape() {
            true => Ok(()),
            false => Err(impossible("the network has another input")),
        }
    }
}

/// The farthest that a try came.
struct Farthest {
    found: usize,
    step: usize,
    left: HashMap<Meaning, usize>,
}

struct Search<'a> {
    space: &'a CompiledSpace,
    matcher: Matcher<'a>,
    output: Meaning,
    surroundings: Vec<Meaning>,
    farthest: Option<Farthest>,
    tries: usize,
}

impl CompiledSpace {
    /// The letters of the genotype of a network.
    ///
    /// # Errors
    /// When the space does not have the network; the message names the first node that does not fit.
    pub fn encode(&self, network: &Network) -> Result<String, Invalid> {
        network.plan(self.catalog())?;
        let nodes = network.nodes();
        let meanings = meanings(nodes);
        let mut left: HashMap<Meaning, usize> = HashMap::new();
        meanings.iter().for_each(|&meaning| *left.entry(meaning).or_default() += 1);
        let matcher = Matcher { ops: &self.ops, input: network.input, left, found: vec![] };
        let mut search = Search {
            space: self,
            matcher,
            output: meanings.last().copied().unwrap_or(INPUT),
            surroundings: surroundings(nodes),
            farthest: None,
            tries: 0,
        };
        let mut options = vec![None; self.genes().len()];
        let found = search.from(0, State::new(&self.program), &mut options);
        match found.map_err(Problem::invalid)? {
            Some(letters) => Ok(letters),
            None if search.tries >= MAX_TRIES => {
                let problem = "the space has too many ways in which this network could come about";
                Err(Invalid::new("", problem))
            }
            None => Err(search.why_not(nodes, &meanings, network.input)),
        }
    }
}

impl Search<'_> {
    /// Tries to match from a step on.
    fn from(
        &mut self,
        first: usize,
        mut state: State,
        options: &mut Vec<Option<u8>>,
    ) -> Result<Option<String>, Problem> {
        let program: &Program = &self.space.program;
        for index in first..program.steps.len() {
            self.tries += 1;
            if self.tries >= MAX_TRIES {
                return Ok(None);
            }
            let found = self.matcher.found.len();
            let mut after = state.clone();
            let mut run = Run { program, builder: &mut self.matcher };
            match run.step(index, &mut after, options) {
                Ok(()) => state = after,
                Err(Problem::Unknown(gene)) => {
                    self.matcher.undo(found);
                    return self.options(gene, index, &state, options);
                }
                Err(Problem::Impossible(_)) => {
                    self.note(index);
                    return Ok(None);
                }
                Err(problem) => return Err(problem),
            }
        }
        let output = state.current.map_or(INPUT, |wire| self.matcher.of(&wire));
        let complete = self.matcher.left.values().all(|&left| left == 0);
        if !complete || output != self.output {
            self.note(program.steps.len());
            return Ok(None);
        }
        let letter = |option: &Option<u8>| char::from(letter_of(option.unwrap_or(INACTIVE)));
        let letters: String = options.iter().map(letter).collect();
        // Nodes with one meaning can be wired to their readers in several ways.
        let same = |network: Network| surroundings(network.nodes()) == self.surroundings;
        let catalog = self.space.catalog();
        let decoded = self.space.decode(&letters).and_then(|spec| Network::new(&spec, catalog));
        Ok(decoded.is_ok_and(same).then_some(letters))
    }

    /// Tries each option of a gene.
    fn options(
        &mut self,
        gene: usize,
        step: usize,
        state: &State,
        options: &mut Vec<Option<u8>>,
    ) -> Result<Option<String>, Problem> {
        let def = &self.space.genes()[gene];
        let numbers = (0u8..).zip(&def.allowed).filter(|(_, allowed)| **allowed);
        let inactive = def.optional.then_some(INACTIVE);
        let numbers: Vec<u8> = numbers.map(|(number, _)| number).chain(inactive).collect();
        let found = self.matcher.found.len();
        for number in numbers {
            options[gene] = Some(number);
            if let Some(letters) = self.from(step, state.clone(), options)? {
                return Ok(Some(letters));
            }
            self.matcher.undo(found);
        }
        options[gene] = None;
        Ok(None)
    }

    fn note(&mut self, step: usize) {
        let found = self.matcher.found.len();
        if self
            .farthest
            .as_ref()
            .is_none_or(|farthest| (found, step) > (farthest.found, farthest.step))
        {
            self.farthest = Some(Farthest { found, step, left: self.matcher.left.clone() });
        }
    }

    fn why_not(&self, nodes: &[NetworkNode], meanings: &[Meaning], input: Input) -> Invalid {
        let space = format!("{}@{}", self.space.name(), self.space.version());
        let Some(Farthest { found, step, left }) = &self.farthest else {
            return Invalid::new("", format!("{space} does not have it"));
        };
        let at = self.space.place_of_step(*step);
        let mut seen: HashMap<Meaning, usize> = HashMap::new();
        let unmatched = nodes.iter().zip(meanings).find(|(_, meaning)| {
            let count = seen.entry(**meaning).or_default();
            *count += 1;
            let all = meanings.iter().filter(|other| other == meaning).count();
            *count > all - left.get(meaning).copied().unwrap_or_default()
        });
        match unmatched {
            _ if *found == 0 && self.input_is_wrong() => {
                let Input { n, c, h, w } = input;
                let problem =
                    format!("n {n}, c {c}, h {h}, w {w} is the input of no network of {space}");
                Invalid::new("input", problem)
            }
            Some((node, _)) => Invalid::new(
                node.place.clone(),
                format!(
                    "{} with {} output channels and stride {} does not fit {at} of {space}",
                    node.op.name(),
                    node.c_out,
                    node.stride
                ),
            ),
            None => Invalid::new("", format!("it ends where {at} of {space} has to follow")),
        }
    }

    /// Whether no choice gives the input of the network.
    fn input_is_wrong(&self) -> bool {
        self.farthest.as_ref().is_some_and(|farthest| {
            matches!(self.space.program.steps.get(farthest.step), Some(super::program::Step::Input))
        })
    }
}

impl CompiledSpace {
    /// The gene or the element at a step, for people.
    fn place_of_step(&self, step: usize) -> String {
        use super::program::Step;
        let program = &self.program;
        let place = match program.steps.get(step) {
            None => return "the end".to_owned(),
            Some(step) => match (step.gene(), step) {
                (Some(gene), _) => return format!("`{}`", program.genes[gene].name),
                (_, Step::Block { stage, .. }) => &program.stages[*stage].place,
                (_, Step::Join { join }) => &program.joins[*join].place,
                (_, Step::Cell { used }) => &program.uses[*used].place,
                _ => "input",
            },
        };
        format!("`{place}`")
    }
}
