//! The canonical order of a graph's vertices.
//!
//! Refinement ([`Colours`]) separates what it can. What remains is resolved in three ways, each of which follows from
//! the graph alone:
//!
//! - **Twins** have the same label, the same inputs and the same readers. Any order of them gives the same graph, so
//!   they get one at once.
//! - **Components** are connected only through vertices that are already separate. Each is resolved by itself. They are
//!   then ordered by their codes, which describe them completely, so components with equal codes are interchangeable.
//! - **Branches**: within a component, each vertex of the largest cell is put first in turn. Refinement then leaves a
//!   trace; the smallest trace decides, and among equal ones the smallest of the resulting codes. Equal codes are an
//!   automorphism. A vertex that an automorphism maps to one that was tried gives nothing new and is left out.

use super::dag::{Dag, Reader};
use super::refine::{Colours, for_each_open_cell};

/// The bound on the work for one graph, in vertices and edges looked at: a fraction of a second.
pub const MAX_WORK: u64 = 1 << 25;

/// The bound on nested branches, for the sake of the stack.
const MAX_DEPTH: usize = 250;

/// The most automorphisms that are kept for outer branches. Without the others, more of these are tried.
const MAX_SYMMETRIES: usize = 1000;

/// The vertices of a graph in an order, each after those that it reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The vertices.
    pub vertices: Vec<u32>,
    /// Whether every numbering of the graph leads to the same graph in this order. False if the search ended at its
    /// bound.
    pub exact: bool,
}

impl Dag {
    /// The canonical order: equal graphs become identical when their vertices are renumbered in it.
    pub fn canonical_order(&self) -> Order {
        self.canonical_order_within(MAX_WORK)
    }

    /// The canonical order, with a bound on the work.
    pub fn canonical_order_within(&self, max_work: u64) -> Order {
        let (mut colours, mut vertices) = Colours::new(self, max_work);
        if !colours.is_discrete(&vertices) {
            colours.refine(&mut vertices);
        }
        if colours.is_discrete(&vertices) {
            return Order { vertices, exact: !colours.is_over() };
        }
        colours.separate_twins(&mut vertices);
        colours.refine(&mut vertices);
        let mut search = Search {
            colours,
            slots: vec![0; self.len()],
            symmetries: Vec::new(),
            too_deep: false,
            greedy: false,
        };
        let vertices = search.resolve(vertices, 0);
        Order { vertices, exact: !search.is_over() }
    }
}

/// A leaf of a branch: an order of the branch's vertices, and its code.
#[derive(Default)]
struct Probe {
    code: Vec<u32>,
    order: Vec<u32>,
}

/// A branch that was followed: its smallest leaf, and its first one.
struct Branch {
    code: Vec<u32>,
    order: Vec<u32>,
    probe: Probe,
}

/// A renumbering: each vertex of the first list becomes the one at the same place of the second.
type Renumbering = (Vec<u32>, Vec<u32>);

struct Search<'a> {
    colours: Colours<'a>,
    /// Places in a list of vertices, counted from 1. Zero outside of the functions that use it.
    slots: Vec<u32>,
    /// Automorphisms, in the order in which they were found.
    symmetries: Vec<Renumbering>,
    too_deep: bool,
    /// Whether any leaf will do: each branching takes its first branch.
    greedy: bool,
}

impl Search<'_> {
    fn is_over(&self) -> bool {
        self.too_deep || self.colours.is_over()
    }

    /// The vertices of a set in canonical order. The set is sorted by rank and refined. All vertices outside that are
    /// connected with it are separate from all others. Ranks are the same afterwards.
    fn resolve(&mut self, mut set: Vec<u32>, depth: usize) -> Vec<u32> {
        let colours = &self.colours;
        let cells = || set.chunk_by(|&a, &b| colours.rank(a) == colours.rank(b));
        let open: Vec<u32> = cells().filter(|cell| cell.len() > 1).flatten().copied().collect();
        self.too_deep |= depth > MAX_DEPTH;
        if open.is_empty() || self.is_over() {
            return set;
        }
        let parts = self.components(&open);
        let ordered = match parts.len() {
            1 => self.branch(open, depth),
            _ => self.each(parts, depth),
        };
        let mut ordered = ordered.into_iter();
        for_each_open_cell(&mut self.colours.ranks, &mut set, |_, cell| {
            cell.iter_mut().zip(&mut ordered).for_each(|(slot, vertex)| *slot = vertex);
        });
        set
    }

    /// Resolves components by themselves, and orders them. The result is sorted by rank.
    fn each(&mut self, parts: Vec<Vec<u32>>, depth: usize) -> Vec<u32> {
        let mut coded = Vec::with_capacity(parts.len());
        for part in parts {
            let order = self.resolve(part, depth);
            coded.push((self.code(&order), order));
        }
        coded.sort_by(|(a, _), (b, _)| a.cmp(b));
        for pair in coded.windows(2) {
            let [(one, from), (other, to)] = pair else { continue };
            if one == other {
                // The two change places.
                self.remember([&from[..], to].concat(), [&to[..], from].concat());
            }
        }
        let mut all: Vec<u32> = coded.into_iter().flat_map(|(_, order)| order).collect();
        all.sort_by_key(|&vertex| self.colours.rank(vertex));
        all
    }

    /// Orders a connected set: each vertex of its largest cell comes first in turn. Of these branches, those with the
    /// smallest trace count, and among them the smallest code decides.
    fn branch(&mut self, open: Vec<u32>, depth: usize) -> Vec<u32> {
        let ranks: Vec<u32> = open.iter().map(|&vertex| self.colours.rank(vertex)).collect();
        let (start, length) = largest_cell(&ranks);
        let cell = &open[start..start + length];
        let mut orbits = DisjointSets::new(length);
        let mut tried = Vec::with_capacity(length);
        let mut least = u64::MAX;
        let mut found: Vec<Branch> = Vec::new();
        for place in 0..length {
            if tried.iter().any(|&other| orbits.are_joined(place, other)) {
                continue;
            }
            tried.push(place);
            let known = self.symmetries.len();
            let mut set = open.clone();
            set[start..=start + place].rotate_right(1);
            for &vertex in &set[start + 1..start + length] {
                self.colours.ranks[vertex as usize] = ranks[start] + 1;
            }
            self.colours.refine(&mut set);
            let trace = self.colours.trace(&set);
            if trace < least {
                (least, found) = (trace, Vec::new());
            }
            if trace == least {
                self.follow(set, &open, &ranks, &mut found, depth);
            }
            self.restore(&open, &ranks);
            let new = self.symmetries.split_off(known);
            self.join(&mut orbits, cell, &new);
            self.symmetries.extend(new.into_iter().take(MAX_SYMMETRIES.saturating_sub(known)));
            if self.is_over() || self.greedy {
                break;
            }
        }
        let best = found.into_iter().min_by(|a, b| a.code.cmp(&b.code));
        best.map_or(open, |branch| branch.order)
    }

    /// Follows a branch to its end, and adds it to those that were found unless it is like one of them.
    fn follow(
        &mut self,
        set: Vec<u32>,
        open: &[u32],
        ranks: &[u32],
        found: &mut Vec<Branch>,
        depth: usize,
    ) {
        if self.greedy {
            let order = self.resolve(set, depth + 1);
            found.push(Branch { code: Vec::new(), order, probe: Probe::default() });
            return;
        }
        // One leaf of the branch, whichever comes first, shows most symmetries at little cost.
        let branched: Vec<u32> = set.iter().map(|&vertex| self.colours.rank(vertex)).collect();
        self.greedy = true;
        let order = self.resolve(set.clone(), depth + 1);
        self.greedy = false;
        self.restore(open, ranks);
        let probe = Probe { code: self.code(&order), order };
        if let Some(like) = found.iter().find(|other| other.probe.code == probe.code) {
            let from = like.probe.order.clone();
            return self.remember(from, probe.order);
        }
        self.restore(&set, &branched);
        let order = self.resolve(set, depth + 1);
        self.restore(open, ranks);
        let code = self.code(&order);
        match found.iter().find(|other| other.code == code) {
            Some(like) => {
                let from = like.order.clone();
                self.remember(from, order);
            }
            None => found.push(Branch { code, order, probe }),
        }
    }

    /// Sets the ranks of some vertices.
    fn restore(&mut self, vertices: &[u32], ranks: &[u32]) {
        for (&vertex, &rank) in vertices.iter().zip(ranks) {
            self.colours.ranks[vertex as usize] = rank;
        }
    }

    /// Keeps an automorphism, for this branching and those that it is part of.
    fn remember(&mut self, from: Vec<u32>, to: Vec<u32>) {
        self.symmetries.push((from, to));
    }

    /// Joins the vertices of a cell that automorphisms map to each other.
    fn join(&mut self, orbits: &mut DisjointSets, cell: &[u32], symmetries: &[Renumbering]) {
        for (slot, &vertex) in (1..).zip(cell) {
            self.slots[vertex as usize] = slot;
        }
        for (from, to) in symmetries {
            for (&from, &to) in from.iter().zip(to) {
                let (from, to) = (self.slots[from as usize], self.slots[to as usize]);
                if from > 0 && to > 0 {
                    orbits.join(from as usize - 1, to as usize - 1);
                }
            }
        }
        cell.iter().for_each(|&vertex| self.slots[vertex as usize] = 0);
    }

    /// The parts of a set that edges inside it connect, each sorted as the set is.
    fn components(&mut self, set: &[u32]) -> Vec<Vec<u32>> {
        for (slot, &vertex) in (1..).zip(set) {
            self.slots[vertex as usize] = slot;
        }
        let mut joined = DisjointSets::new(set.len());
        for (place, &vertex) in set.iter().enumerate() {
            for &input in self.colours.dag.inputs(vertex) {
                if let Some(other) = self.slots[input as usize].checked_sub(1) {
                    joined.join(place, other as usize);
                }
            }
        }
        set.iter().for_each(|&vertex| self.slots[vertex as usize] = 0);
        let mut parts: Vec<Vec<u32>> = Vec::new();
        let mut part_of_root = vec![None; set.len()];
        for (place, &vertex) in set.iter().enumerate() {
            let part = *part_of_root[joined.root(place)].get_or_insert_with(|| {
                parts.push(Vec::new());
                parts.len() - 1
            });
            parts[part].push(vertex);
        }
        parts
    }

    /// A complete description of a set in an order: for each vertex its rank, its inputs and its readers. A vertex of
    /// the set is named by its place, and one outside by its rank, which no other has. So two sets with one code can
    /// change places.
    fn code(&mut self, order: &[u32]) -> Vec<u32> {
        for (slot, &vertex) in (1..).zip(order) {
            self.slots[vertex as usize] = slot;
        }
        let Colours { dag, readers, ranks, .. } = &self.colours;
        let mut code = Vec::with_capacity(8 * order.len());
        let mut work = 0;
        for &vertex in order {
            let inputs = dag.inputs(vertex);
            code.extend([ranks[vertex as usize], inputs.len() as u32]);
            let start = code.len();
            code.extend(inputs.iter().map(|&input| match self.slots[input as usize] {
                0 => 2 * ranks[input as usize] + 1,
                slot => 2 * slot,
            }));
            if !dag.is_ordered(vertex) {
                code[start..].sort_unstable();
            }
            let edges = readers.of_vertex(vertex);
            let outside = edges.iter().filter(|reader| self.slots[reader.vertex as usize] == 0);
            let mut outside: Vec<[u32; 2]> =
                outside.map(|reader| [ranks[reader.vertex as usize], reader.position]).collect();
            outside.sort_unstable();
            code.push(outside.len() as u32);
            code.extend(outside.iter().flatten());
            work += 1 + inputs.len() + edges.len();
        }
        self.colours.work += work as u64;
        order.iter().for_each(|&vertex| self.slots[vertex as usize] = 0);
        code
    }
}

/// Start and length of the longest run of equal ranks, and of the first among these.
///
/// In a symmetric graph, the vertices of a large cell are more often alike than those of a small one: the points of a
/// line that three of its points are fixed on are all different, although refinement does not see it.
fn largest_cell(ranks: &[u32]) -> (usize, usize) {
    let mut largest = (0, 0);
    let mut start = 0;
    for cell in ranks.chunk_by(|a, b| a == b) {
        if cell.len() > largest.1 {
            largest = (start, cell.len());
        }
        start += cell.len();
    }
    largest
}

impl Colours<'_> {
    fn is_discrete(&self, set: &[u32]) -> bool {
        set.windows(2).all(|pair| self.rank(pair[0]) != self.rank(pair[1]))
    }

    /// Splits each cell so that no two twins remain in one.
    fn separate_twins(&mut self, set: &mut [u32]) {
        let Colours { dag, readers, ranks, .. } = self;
        let surroundings = |vertex: u32| -> (Vec<u32>, &[Reader]) {
            let mut inputs = dag.inputs(vertex).to_vec();
            if !dag.is_ordered(vertex) {
                inputs.sort_unstable();
            }
            (inputs, readers.of_vertex(vertex))
        };
        for_each_open_cell(ranks, set, |ranks, cell| {
            cell.sort_by_cached_key(|&vertex| surroundings(vertex));
            // A vertex's number among its twins.
            let mut numbers: Vec<(u32, u32)> = Vec::with_capacity(cell.len());
            for twins in cell.chunk_by(|&a, &b| surroundings(a) == surroundings(b)) {
                numbers.extend((0..).zip(twins.iter().copied()));
            }
            numbers.sort_by_key(|&(number, _)| number);
            let first = ranks[cell[0] as usize];
            let mut rank = first;
            for (place, &(number, vertex)) in numbers.iter().enumerate() {
                if place > 0 && number != numbers[place - 1].0 {
                    rank = first + place as u32;
                }
                cell[place] = vertex;
                ranks[vertex as usize] = rank;
            }
        });
    }
}

/// Disjoint sets of the numbers below a bound.
struct DisjointSets {
    parents: Vec<usize>,
}

impl DisjointSets {
    fn new(count: usize) -> DisjointSets {
        DisjointSets { parents: (0..count).collect() }
    }

    fn root(&mut self, mut of: usize) -> usize {
        while self.parents[of] != of {
            self.parents[of] = self.parents[self.parents[of]];
            of = self.parents[of];
        }
        of
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        self.parents[a.max(b)] = a.min(b);
    }

    fn are_joined(&mut self, a: usize, b: usize) -> bool {
        self.root(a) == self.root(b)
    }
}
