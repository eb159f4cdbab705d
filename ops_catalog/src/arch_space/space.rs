//! Compiled spaces: genotypes, their costs, and their number.

use std::sync::Arc;

use super::compile::compile;
use super::ops::{Ops, SpaceKey};
use super::order::running_order;
use super::program::{Gene, Program};
use super::resolve::{Restriction, resolve};
use super::run::INACTIVE;
use super::spec::ArchSpaceDef;
use super::tables::{NONE, Parts, Tables, Transition, row, sum};
use crate::error::shown;
use crate::op::{Op, OpDef};
use crate::primitive::Cost;
use crate::space::check_space_name;
use crate::{Catalog, Invalid, text};

/// The letter of an inactive gene.
pub const INACTIVE_LETTER: u8 = b'.';

/// The option of each letter; 255 for what is no letter of a genotype.
const LETTERS: [u8; 256] = {
    let mut options = [255; 256];
    let mut option = 0;
    while option < INACTIVE {
        options[letter_of(option) as usize] = option;
        option += 1;
    }
    options[INACTIVE_LETTER as usize] = INACTIVE;
    options
};

/// The option of a letter; [`INACTIVE`] for the letter of an inactive gene.
pub(super) fn option_of(letter: u8) -> Option<u8> {
    Some(LETTERS[usize::from(letter)]).filter(|&option| option <= INACTIVE)
}

/// The letter of an option by its number: `0` to `9`, then `a` to `z`.
pub const fn letter_of(option: u8) -> u8 {
    match option {
        0..10 => b'0' + option,
        10..36 => b'a' + option - 10,
        _ => INACTIVE_LETTER,
    }
}

/// A part of networks, by its number: what an option adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartId(u32);

impl PartId {
    /// The number, from 0 on and below [`CompiledSpace::parts`].
    pub fn index(self) -> usize {
        self.0 as usize
    }

    /// The same as 32 bits.
    pub fn number(self) -> u32 {
        self.0
    }
}

/// What one option of one gene adds to a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part<'a> {
    /// The op keys, by their number among [`CompiledSpace::keys`].
    pub keys: &'a [u32],
    /// How often it has each op, by the number of the op among [`CompiledSpace::ops`]; merges do not count.
    pub ops: &'a [(u32, u32)],
    /// Number of ops, without merges.
    pub layers: u32,
    /// Number of merges.
    pub merges: u32,
    /// Sum of the costs of the keys.
    pub cost: Cost,
}

/// Sums over a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Totals {
    /// Number of ops, without merges.
    pub layers: u64,
    /// Number of merges.
    pub merges: u64,
    /// Sum of the costs of the ops and merges.
    pub cost: Cost,
    /// How often the network has each op of the space, without merges.
    pub ops: Vec<u64>,
}

/// A state on the walk along a genotype. It stands before one gene.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StateId(u32);

impl StateId {
    /// The place of its first transition.
    pub(super) fn number(self) -> usize {
        self.0 as usize
    }
}

/// Where a walk ends that does not lead to a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped {
    /// The gene, from 0 on; the number of genes if the genotype has too many letters.
    pub gene: usize,
}

/// The letters that a gene can have.
#[derive(Debug, Clone, Copy)]
struct Alphabet {
    options: u8,
    optional: bool,
}

/// A space of architectures in a form for millions of look-ups a second.
#[derive(Debug)]
pub struct CompiledSpace {
    name: String,
    version: u32,
    doc: String,
    pub(super) program: Program,
    pub(super) ops: Ops,
    pub(super) own_ops: Vec<OpDef>,
    pub(super) tables: Tables,
    /// The place of each slot in the running order; none if the order depends on the network.
    ranks: Option<Vec<u32>>,
    /// The letters of each gene, close together.
    alphabets: Vec<Alphabet>,
    /// Cumulative chances of the transitions of a state, in a random genotype.
    pub(super) chances: Vec<u64>,
    size: u128,
    log10_size: f64,
}

impl ArchSpaceDef {
    /// Compiles the space. Its ops are those of the catalog, and its own.
    ///
    /// # Errors
    /// Names the field and the problem: names that do not exist, options that no network can have, bounds.
    pub fn compile(&self, catalog: &Catalog) -> Result<CompiledSpace, Invalid> {
        self.compile_restricted(catalog, &Restriction::new())
    }

    /// Checks names and values, those of a restriction included, without the shapes of networks.
    ///
    /// # Errors
    /// Names the field or the choice, and the problem.
    pub fn check(&self, restriction: &Restriction) -> Result<(), Invalid> {
        resolve(self, restriction).map(|_| ())
    }

    /// Compiles a part of the space: networks in which some choices have some of their values only. Genotypes are those
    /// of the whole space.
    ///
    /// # Errors
    /// As for [`ArchSpaceDef::compile`]; when a choice or a value of the restriction does not exist.
    pub fn compile_restricted(
        &self,
        catalog: &Catalog,
        restriction: &Restriction,
    ) -> Result<CompiledSpace, Invalid> {
        check_space_name(&self.name).map_err(|e| Invalid::new("name", e.problem))?;
        let catalog = catalog.with_ops(self.ops.iter().cloned()).map_err(|e| e.within("ops"))?;
        let program = resolve(self, restriction)?;
        let ranks = running_order(&program)?;
        let ascending = |ranks: &Vec<u32>| ranks.is_sorted();
        let ordered = program.uses.is_empty() && ranks.as_ref().is_some_and(ascending);
        let mut ops = Ops::new(catalog);
        let tables = compile(&program, &mut ops, ordered)?;
        let first = 0..row(&program, 0) as usize;
        let size = sum(&tables.ways[first.clone()]);
        if size == 0 {
            return Err(Invalid::new("", "the restriction leaves no network"));
        }
        let log10_size = tables.weights[first].iter().sum::<f64>().log10();
        let chances = chances(&program, &tables);
        let alphabet = |gene: &Gene| Alphabet {
            options: u8::try_from(gene.options.len()).unwrap_or(INACTIVE),
            optional: gene.optional,
        };
        let alphabets = program.genes.iter().map(alphabet).collect();
        Ok(CompiledSpace {
            name: self.name.clone(),
            version: self.version,
            doc: self.doc.clone(),
            program,
            ops,
            own_ops: self.ops.clone(),
            tables,
            ranks,
            alphabets,
            chances,
            size,
            log10_size,
        })
    }
}

/// The cumulative chances of each state's transitions, as fractions of 2^64.
fn chances(program: &Program, tables: &Tables) -> Vec<u64> {
    let mut chances = vec![0; tables.transitions.len()];
    for gene in 0..program.genes.len() {
        let width = row(program, gene) as usize;
        for begin in tables.transitions_of(gene).step_by(width) {
            let weights = &tables.weights[begin..begin + width];
            let total: f64 = weights.iter().sum();
            let last = weights.iter().rposition(|&weight| weight > 0.0);
            let mut before = 0.0;
            for (column, weight) in weights.iter().enumerate() {
                before += weight;
                // A fraction of 1 becomes the largest integer.
                chances[begin + column] = match Some(column) == last {
                    true => u64::MAX,
                    false => (before / total * 2f64.powi(64)) as u64,
                };
            }
        }
    }
    chances
}

impl CompiledSpace {
    /// Reads a definition in YAML and compiles it.
    ///
    /// # Errors
    /// As for [`ArchSpaceDef::compile`], with line and column.
    pub fn from_yaml(text: &str, catalog: &Catalog) -> Result<CompiledSpace, Invalid> {
        text::read_checked(text, |def: ArchSpaceDef| def.compile(catalog))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The version of its definition.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// What it is.
    pub fn doc(&self) -> &str {
        &self.doc
    }

    /// The genes, one for each letter of a genotype.
    pub fn genes(&self) -> &[Gene] {
        &self.program.genes
    }

    /// Every op at every shape that some network of the space has.
    pub fn keys(&self) -> &[SpaceKey] {
        &self.ops.keys
    }

    /// The ops of the space.
    pub fn ops(&self) -> &[Arc<Op>] {
        &self.ops.ops
    }

    /// The catalog with the space's own ops.
    pub fn catalog(&self) -> &Catalog {
        self.ops.catalog()
    }

    /// The number of parts that options add.
    pub fn parts(&self) -> usize {
        self.tables.parts.parts.len()
    }

    /// The number of options in all states, which says how large the tables are.
    pub fn transitions(&self) -> usize {
        self.tables.transitions.len()
    }

    /// A part.
    pub fn part(&self, part: PartId) -> Part<'_> {
        let Parts { keys, ops, parts, .. } = &self.tables.parts;
        let data = &parts[part.index()];
        let before = part.index().checked_sub(1).map_or(0, |before| parts[before].ops_end as usize);
        Part {
            keys: &keys[self.tables.parts.keys_of(part.0)],
            ops: &ops[before..data.ops_end as usize],
            layers: data.layers,
            merges: data.merges,
            cost: data.cost,
        }
    }

    /// All parts, in the order of their numbers.
    pub fn all_parts(&self) -> impl Iterator<Item = Part<'_>> {
        (0..self.tables.parts.parts.len()).map(|at| self.part(PartId(at as u32)))
    }

    /// The part that every network has, and the state before the first gene.
    pub fn start(&self) -> (PartId, StateId) {
        (PartId(self.tables.base), StateId(0))
    }

    /// What a letter adds in a state before a gene, and the state after it; none if it is not possible. After the last
    /// gene, the state has no meaning.
    #[inline]
    pub fn step(&self, gene: usize, state: StateId, letter: u8) -> Option<(PartId, StateId)> {
        let at = self.transition(gene, state, letter)?;
        let Transition { next, part } = self.tables.transitions[at];
        (next != NONE).then_some((PartId(part), StateId(next)))
    }

    #[inline]
    fn transition(&self, gene: usize, state: StateId, letter: u8) -> Option<usize> {
        let Alphabet { options, optional } = self.alphabets[gene];
        let column = match LETTERS[usize::from(letter)] {
            option if option < options => option,
            INACTIVE if optional => options,
            _ => return None,
        };
        Some(state.0 as usize + usize::from(column))
    }

    /// The letter in place of one that gives the same networks.
    pub(super) fn twin(&self, gene: usize, state: StateId, letter: u8) -> Option<char> {
        let twin = *self.tables.twins.get(&self.transition(gene, state, letter)?)?;
        let option = u8::try_from(twin).ok().filter(|&n| n < self.alphabets[gene].options);
        Some(char::from(letter_of(option.unwrap_or(INACTIVE))))
    }

    /// Walks along the letters of a genotype, and tells the parts of its network: the one that all networks have, then
    /// one for each gene. Sums over them are sums over the network.
    ///
    /// # Errors
    /// Where the letters do not lead to a network. [`CompiledSpace::explain`] has the reason.
    #[inline]
    pub fn walk(&self, letters: &[u8], mut part: impl FnMut(PartId)) -> Result<(), Stopped> {
        let genes = self.program.genes.len();
        if letters.len() != genes {
            return Err(Stopped { gene: letters.len().min(genes) });
        }
        let (base, mut state) = self.start();
        part(base);
        for (gene, &letter) in letters.iter().enumerate() {
            let (added, next) = self.step(gene, state, letter).ok_or(Stopped { gene })?;
            part(added);
            state = next;
        }
        Ok(())
    }

    /// Sums over the network of some letters.
    ///
    /// # Errors
    /// When the letters do not lead to a network.
    pub fn totals(&self, letters: &[u8]) -> Result<Totals, Invalid> {
        let mut totals =
            Totals { layers: 0, merges: 0, cost: Cost::default(), ops: vec![0; self.ops().len()] };
        let walked = self.walk(letters, |part| {
            let part = self.part(part);
            totals.layers += u64::from(part.layers);
            totals.merges += u64::from(part.merges);
            totals.cost += part.cost;
            for &(op, count) in part.ops {
                totals.ops[op as usize] += u64::from(count);
            }
        });
        walked.map(|()| totals).map_err(|_| self.explain(letters))
    }

    /// The keys of a network in running order, by their number among [`CompiledSpace::keys`].
    ///
    /// # Errors
    /// When the letters do not lead to a network.
    pub fn running_keys(&self, letters: &[u8], keys: &mut Vec<u32>) -> Result<(), Invalid> {
        keys.clear();
        if self.tables.slots.is_empty() {
            let walked = self.walk(letters, |part| keys.extend(self.part(part).keys));
            return walked.map_err(|_| self.explain(letters));
        }
        let Some(ranks) = &self.ranks else { return self.planned_keys(letters, keys) };
        let mut placed: Vec<(u32, u32)> = Vec::with_capacity(8 * letters.len());
        let mut ends = vec![0u32; ranks.len()];
        let mut place = |part: PartId, slots: &[u32]| {
            for (&slot, &key) in slots.iter().zip(self.part(part).keys) {
                let rank = ranks[slot as usize];
                ends[rank as usize] += 1;
                placed.push((rank, key));
            }
        };
        let (base, mut state) = self.start();
        place(base, &self.tables.base_slots);
        if letters.len() != self.program.genes.len() {
            return Err(self.explain(letters));
        }
        for (gene, &letter) in letters.iter().enumerate() {
            let at = self.transition(gene, state, letter).ok_or_else(|| self.explain(letters))?;
            let Transition { next, part } = self.tables.transitions[at];
            if next == NONE {
                return Err(self.explain(letters));
            }
            place(PartId(part), &self.tables.slots[at]);
            state = StateId(next);
        }
        let mut before = 0;
        for end in &mut ends {
            (*end, before) = (before, before + *end);
        }
        keys.resize(placed.len(), 0);
        // The merges of an op have its slot and stand before it.
        for (rank, key) in placed {
            let place = &mut ends[rank as usize];
            keys[*place as usize] = key;
            *place += 1;
        }
        Ok(())
    }

    /// The number of genotypes; the largest number if there are more.
    pub fn size(&self) -> u128 {
        self.size
    }

    /// The decimal logarithm of the number of genotypes.
    pub fn log10_size(&self) -> f64 {
        self.log10_size
    }

    /// A genotype in full: `SPACE@VERSION:LETTERS`.
    pub fn genotype(&self, letters: &[u8]) -> String {
        format!("{}@{}:{}", self.name, self.version, shown(&String::from_utf8_lossy(letters)))
    }

    /// The letters of a genotype, which are written alone or after the name and version of the space. They need not
    /// lead to a network.
    ///
    /// # Errors
    /// When the genotype is of another space or version.
    pub fn letters<'a>(&self, genotype: &'a str) -> Result<&'a str, Invalid> {
        let Some((space, letters)) = genotype.split_once(':') else { return Ok(genotype) };
        let own = format!("{}@{}", self.name, self.version);
        if space == own {
            return Ok(letters);
        }
        let problem = match space.split_once('@') {
            Some((name, version)) if name == self.name => {
                format!("is of version {} of the space, and this is {own}", shown(version))
            }
            Some(_) => format!("is of the space {}, and this is {own}", shown(space)),
            None => format!("should begin with {own}: or have no `:`"),
        };
        Err(Invalid::new(format!("genotype {}", shown(genotype)), problem))
    }
}
