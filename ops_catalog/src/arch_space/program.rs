//! A definition with every name looked up: genes, and the steps that make a network from them.

use super::amount::Term;
use super::spec::ChoiceValue;
use crate::spec::Merge;

/// The most options of a gene: one for each digit and letter.
pub(super) const MAX_OPTIONS: usize = 36;

/// One place of a genotype.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gene {
    /// What it chooses, for people.
    pub name: String,
    /// Its options, by their number.
    pub options: Vec<String>,
    /// Whether it is inactive in some networks, where it is written `.`.
    pub optional: bool,
    /// Its place in the definition.
    pub(super) place: String,
    /// Which options a restriction leaves.
    pub(super) allowed: Vec<bool>,
}

/// A choice with a name, whose value is used by what follows it.
#[derive(Debug, Clone)]
pub(super) struct Choice {
    pub(super) values: Vec<ChoiceValue>,
}

/// The name of an op, whose holes are values of choices.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct OpName(pub(super) Vec<Piece>);

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Piece {
    Text(String),
    Choice(usize),
}

impl OpName {
    pub(super) fn choices(&self) -> impl Iterator<Item = usize> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Choice(index) => Some(*index),
            Piece::Text(_) => None,
        })
    }
}

#[derive(Debug, Clone)]
pub(super) struct Layer {
    pub(super) op: OpName,
    pub(super) changes_shape: Option<OpName>,
    /// The option's channels if not given.
    pub(super) c_out: Option<Term>,
    /// The block's stride in the first layer and 1 in others, if not given.
    pub(super) stride: Option<Term>,
}

/// An option of a block or an edge.
#[derive(Debug, Clone)]
pub(super) struct Alternative {
    pub(super) label: String,
    pub(super) layers: Vec<Layer>,
    /// The stage's channels if not given.
    pub(super) c_out: Option<Term>,
    /// The stage's stride in its first block and 1 in others, if not given.
    pub(super) stride: Option<Term>,
    /// The values of its own choices, by name.
    pub(super) bindings: Vec<(String, ChoiceValue)>,
}

/// The number of blocks of a stage.
#[derive(Debug, Clone)]
pub(super) enum Depth {
    Fixed(u32),
    /// It follows from choices, within these bounds.
    Forced {
        blocks: Term,
        least: u32,
        most: u32,
    },
    /// A block can be absent after so many, and then so are all blocks after it. Ascending.
    Listed(Vec<u32>),
}

impl Depth {
    pub(super) fn least(&self) -> u32 {
        match self {
            Depth::Fixed(blocks) => *blocks,
            Depth::Forced { least, .. } => *least,
            Depth::Listed(depths) => depths.first().copied().unwrap_or_default(),
        }
    }

    pub(super) fn most(&self) -> u32 {
        match self {
            Depth::Fixed(blocks) => *blocks,
            Depth::Forced { most, .. } => *most,
            Depth::Listed(depths) => depths.last().copied().unwrap_or_default(),
        }
    }
}

/// Blocks in a row, with the same options.
#[derive(Debug, Clone)]
pub(super) struct Stage {
    pub(super) place: String,
    pub(super) depth: Depth,
    pub(super) options: Vec<Alternative>,
    pub(super) c_out: Option<Term>,
    pub(super) stride: Term,
    /// What the first block reads, by name; what stands before it if empty.
    pub(super) inputs: Vec<usize>,
    pub(super) merge: Merge,
    /// The most layers of a block.
    pub(super) layers: u32,
    /// The slot of the first layer of the first block.
    pub(super) slot: u32,
}

/// Optional edges from earlier values, which are added to the current one.
#[derive(Debug, Clone)]
pub(super) struct Join {
    pub(super) place: String,
    pub(super) sources: Vec<usize>,
    pub(super) through: Option<OpName>,
    /// The slot of the first source's op; the last one is the addition.
    pub(super) slot: u32,
}

/// A cell: its values are its inputs, then its nodes.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    pub(super) place: String,
    pub(super) inputs: usize,
    pub(super) adapt: Option<(OpName, Option<OpName>)>,
    pub(super) nodes: Vec<CellNode>,
    pub(super) concat: bool,
    pub(super) options: Vec<Alternative>,
    /// The most layers of an edge.
    pub(super) layers: u32,
}

#[derive(Debug, Clone)]
pub(super) struct CellNode {
    /// Each is a set of values that the node can read.
    pub(super) sources: Vec<Vec<usize>>,
    /// The gene that chooses among the sets, if there are several.
    pub(super) gene: Option<usize>,
    /// The gene of each edge; none if edges have one option.
    pub(super) edges: Vec<Option<usize>>,
    /// Whether the sum of the edges is an op of its own, because more than one op can read it.
    pub(super) summed: bool,
}

impl Cell {
    /// The slots of one use.
    pub(super) fn slots(&self) -> u32 {
        self.output_slot(0) + 1
    }

    /// The slot of the first layer of an edge, and with an edge after the last one the slot of the sum.
    pub(super) fn edge_slot(&self, first: u32, node: usize, edge: usize) -> u32 {
        let before = &self.nodes[..node];
        let edges: usize = before.iter().map(|node| node.edges.len()).sum::<usize>() + edge;
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        first + count(self.inputs) + count(edges) * self.layers + count(node)
    }

    pub(super) fn output_slot(&self, first: u32) -> u32 {
        self.edge_slot(first, self.nodes.len(), 0)
    }
}

/// A use of a cell.
#[derive(Debug, Clone)]
pub(super) struct CellUse {
    pub(super) place: String,
    pub(super) cell: usize,
    pub(super) c_out: Term,
    pub(super) stride: Term,
    /// What it reads, by name; the outputs of the elements before it if empty.
    pub(super) inputs: Vec<usize>,
    pub(super) slot: u32,
}

/// A gene of a cell, which is read by all uses of the cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CellGene {
    pub(super) cell: usize,
    pub(super) node: usize,
    /// The edge; none for the gene that chooses what the node reads.
    pub(super) edge: Option<usize>,
}

/// One step towards a network.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// The network's input.
    Input,
    /// A choice gets its value.
    Choose { gene: usize, choice: usize },
    /// An element of the body begins.
    Enter,
    /// A block of a stage.
    Block { gene: Option<usize>, stage: usize, index: u32 },
    /// The current value gets a name.
    Save { tap: usize },
    /// An optional edge.
    Edge { gene: usize, join: usize, source: usize },
    /// The sum of the current value and what optional edges bring.
    Join { join: usize },
    /// The use of a cell.
    Cell { used: usize },
}

impl Step {
    /// The gene that the step reads. Uses of cells read genes that stand at the end of the genotype.
    pub(super) fn gene(&self) -> Option<usize> {
        match self {
            Step::Choose { gene, .. } | Step::Edge { gene, .. } => Some(*gene),
            Step::Block { gene, .. } => *gene,
            _ => None,
        }
    }
}

/// What is needed after a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Live {
    pub(super) choices: Vec<bool>,
    pub(super) taps: Vec<bool>,
    /// Whether a later cell reads the outputs of two elements.
    pub(super) before: bool,
}

/// The network's input as a named value.
pub(super) const INPUT_TAP: usize = 0;

/// A definition with every name looked up.
#[derive(Debug, Clone)]
pub(super) struct Program {
    pub(super) divisor: Option<u32>,
    /// Batch, channels, height and width.
    pub(super) input: [Term; 4],
    pub(super) choices: Vec<Choice>,
    /// In the order of the genotype: those of the body, then those of the cells.
    pub(super) genes: Vec<Gene>,
    /// The genes of cells, in order; they are the last ones.
    pub(super) cell_genes: Vec<CellGene>,
    pub(super) steps: Vec<Step>,
    pub(super) stages: Vec<Stage>,
    pub(super) joins: Vec<Join>,
    pub(super) cells: Vec<Cell>,
    pub(super) uses: Vec<CellUse>,
    /// Number of named values.
    pub(super) taps: usize,
    /// Number of places where a network can have an op.
    pub(super) slots: u32,
    /// By step.
    pub(super) live: Vec<Live>,
}

impl Program {
    /// The first gene of a cell.
    pub(super) fn first_cell_gene(&self) -> usize {
        self.genes.len() - self.cell_genes.len()
    }

    /// Whether a gene changes wires and nothing else, so that equal costs do not mean equal networks.
    pub(super) fn decides_wires(&self, gene: usize) -> bool {
        let of_cell = gene.checked_sub(self.first_cell_gene());
        of_cell.is_some_and(|gene| self.cell_genes[gene].edge.is_none())
    }

    /// What each step uses, so that states forget what nothing needs any more.
    pub(super) fn find_live(&mut self) {
        let mut live = Live {
            choices: vec![false; self.choices.len()],
            taps: vec![false; self.taps],
            before: false,
        };
        // The genes of cells come last, and their ops can have choices in their names.
        for cell in &self.cells {
            let options = cell.options.iter().flat_map(Alternative::choices);
            options.for_each(|choice| live.choices[choice] = true);
        }
        self.live = vec![live.clone(); self.steps.len()];
        for (index, step) in self.steps.iter().enumerate().rev() {
            self.live[index] = live.clone();
            let mut choices: Vec<usize> = vec![];
            match step {
                Step::Input => choices.extend(self.input.iter().flat_map(Term::choices)),
                Step::Block { stage, .. } => {
                    let stage = &self.stages[*stage];
                    choices.extend(stage.choices());
                    stage.inputs.iter().for_each(|&tap| live.taps[tap] = true);
                }
                Step::Edge { join, source, .. } => {
                    let join = &self.joins[*join];
                    live.taps[join.sources[*source]] = true;
                    choices.extend(join.through.iter().flat_map(OpName::choices));
                }
                Step::Cell { used } => {
                    let used = &self.uses[*used];
                    choices.extend(used.c_out.choices().chain(used.stride.choices()));
                    let adapt = self.cells[used.cell].adapt.iter();
                    choices.extend(adapt.flat_map(|(op, strided)| {
                        op.choices().chain(strided.iter().flat_map(OpName::choices))
                    }));
                    used.inputs.iter().for_each(|&tap| live.taps[tap] = true);
                    live.before |= used.inputs.is_empty() && self.cells[used.cell].inputs == 2;
                }
                Step::Choose { .. } | Step::Enter | Step::Save { .. } | Step::Join { .. } => {}
            }
            choices.into_iter().for_each(|choice| live.choices[choice] = true);
        }
    }
}

impl Alternative {
    pub(super) fn choices(&self) -> impl Iterator<Item = usize> {
        let own = self.c_out.iter().chain(&self.stride);
        let layers = self.layers.iter().flat_map(|layer| {
            let names = [Some(&layer.op), layer.changes_shape.as_ref()];
            let names = names.into_iter().flatten().flat_map(OpName::choices);
            names.chain(layer.c_out.iter().chain(&layer.stride).flat_map(Term::choices))
        });
        own.flat_map(Term::choices).chain(layers)
    }
}

impl Stage {
    fn choices(&self) -> impl Iterator<Item = usize> {
        let depth = match &self.depth {
            Depth::Forced { blocks, .. } => Some(blocks),
            Depth::Fixed(_) | Depth::Listed(_) => None,
        };
        let terms = depth.into_iter().chain(&self.c_out).chain([&self.stride]);
        terms.flat_map(Term::choices).chain(self.options.iter().flat_map(Alternative::choices))
    }
}
