//! Colour refinement: vertices that differ in their surroundings get different ranks.
//!
//! A rank is the place of the first vertex of its cell in an order of all vertices. Cells only split, and the parts of
//! a cell share the places that it had. The order of the parts depends on the graph alone, and never on the numbers of
//! its vertices.
//!
//! The surroundings are compared by 64-bit hashes. Two vertices whose hashes collide stay in one cell, which costs the
//! search time and never a wrong answer.

use super::dag::{Dag, Readers};

/// A partition of the vertices into cells, and what refining them needs.
pub(super) struct Colours<'a> {
    pub(super) dag: &'a Dag,
    pub(super) readers: Readers,
    /// The rank of each vertex.
    pub(super) ranks: Vec<u32>,
    /// Hashes of what leads to each vertex, and of its whole surroundings.
    before: Vec<u64>,
    around: Vec<u64>,
    /// The work so far, in vertices and edges looked at.
    pub(super) work: u64,
    max_work: u64,
}

fn mix(a: u64, b: u64) -> u64 {
    let mixed = (a.rotate_left(23) ^ b).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed ^ (mixed >> 29)
}

impl<'a> Colours<'a> {
    /// All vertices by rank, with a rank for each depth, label and number of inputs. The depth comes first, so a vertex
    /// stands after those that it reads, in this order and in all later ones.
    pub(super) fn new(dag: &'a Dag, max_work: u64) -> (Colours<'a>, Vec<u32>) {
        let count = dag.len() as u32;
        let mut depths = vec![0u32; dag.len()];
        for vertex in 0..count {
            let depth = dag.inputs(vertex).iter().map(|&input| depths[input as usize] + 1).max();
            depths[vertex as usize] = depth.unwrap_or(0);
        }
        let key = |&vertex: &u32| {
            let inputs = dag.inputs(vertex).len();
            (depths[vertex as usize], dag.label(vertex), dag.is_ordered(vertex), inputs)
        };
        let mut order: Vec<u32> = (0..count).collect();
        order.sort_by_key(key);
        let mut ranks = vec![0; dag.len()];
        let mut rank = 0;
        for (place, vertex) in (0..).zip(&order) {
            if place > 0 && key(vertex) != key(&order[place as usize - 1]) {
                rank = place;
            }
            ranks[*vertex as usize] = rank;
        }
        let hashes = vec![0; dag.len()];
        let (before, around) = (hashes.clone(), hashes);
        let readers = Readers::of(dag);
        (Colours { dag, readers, ranks, before, around, work: 0, max_work }, order)
    }

    pub(super) fn is_over(&self) -> bool {
        self.work > self.max_work
    }

    pub(super) fn rank(&self, vertex: u32) -> u32 {
        self.ranks[vertex as usize]
    }

    /// Splits cells until no cell has vertices with different surroundings. `set` is sorted by rank, and stays so.
    /// Vertices that are not in it keep their hashes, which earlier refinements gave them.
    pub(super) fn refine(&mut self, set: &mut [u32]) {
        let mut cells = self.cells(set);
        loop {
            self.hash(set);
            self.split(set);
            let now = self.cells(set);
            if now == cells || now == set.len() || self.is_over() {
                return;
            }
            cells = now;
        }
    }

    /// A hash of what refinement made of a set.
    pub(super) fn trace(&self, set: &[u32]) -> u64 {
        set.iter().fold(0, |trace, &vertex| {
            mix(trace, mix(self.around[vertex as usize], self.rank(vertex).into()))
        })
    }

    fn cells(&self, set: &[u32]) -> usize {
        set.chunk_by(|&a, &b| self.rank(a) == self.rank(b)).count()
    }

    /// Hashes the surroundings: once along the edges, and once against them. So a difference anywhere is seen
    /// everywhere in few rounds, however long the graph is.
    fn hash(&mut self, set: &[u32]) {
        for &vertex in set {
            let inputs = self.dag.inputs(vertex);
            let before = |input: &u32| self.before[*input as usize];
            let read = match self.dag.is_ordered(vertex) {
                true => inputs.iter().fold(1, |hash, input| mix(hash, before(input))),
                false => {
                    inputs.iter().fold(0u64, |sum, input| sum.wrapping_add(mix(2, before(input))))
                }
            };
            self.before[vertex as usize] = mix(mix(3, self.rank(vertex).into()), read);
            self.work += 1 + inputs.len() as u64;
        }
        for &vertex in set.iter().rev() {
            let readers = self.readers.of_vertex(vertex);
            let around = readers.iter().fold(0u64, |sum, reader| {
                sum.wrapping_add(mix(self.around[reader.vertex as usize], reader.position.into()))
            });
            self.around[vertex as usize] = mix(self.before[vertex as usize], around);
            self.work += 1 + readers.len() as u64;
        }
    }

    /// Splits each cell by the hashes.
    fn split(&mut self, set: &mut [u32]) {
        let Colours { ranks, around, .. } = self;
        for_each_open_cell(ranks, set, |ranks, cell| {
            cell.sort_unstable_by_key(|&vertex| around[vertex as usize]);
            let first = ranks[cell[0] as usize];
            let mut rank = first;
            for (place, &vertex) in cell.iter().enumerate() {
                if place > 0 && around[vertex as usize] != around[cell[place - 1] as usize] {
                    rank = first + place as u32;
                }
                ranks[vertex as usize] = rank;
            }
        });
    }
}

/// Calls a function with each cell of more than one vertex, which may split it.
pub(super) fn for_each_open_cell(
    ranks: &mut [u32],
    mut set: &mut [u32],
    mut call: impl FnMut(&mut [u32], &mut [u32]),
) {
    while let [first, ..] = set {
        let rank = ranks[*first as usize];
        let length = set.iter().take_while(|&&vertex| ranks[vertex as usize] == rank).count();
        let (cell, rest) = set.split_at_mut(length);
        if length > 1 {
            call(ranks, cell);
        }
        set = rest;
    }
}
