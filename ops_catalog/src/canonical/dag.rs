//! A labelled acyclic graph, whose vertices read other vertices in order or as a multiset.

/// A directed acyclic graph with a label on each vertex.
///
/// Vertices are numbered in the order in which they are added, so a vertex has a larger number than those that it
/// reads. A vertex reads its inputs in their order, or as a multiset: one vertex can occur several times.
///
/// Two graphs are equal if a renumbering of the vertices turns one into the other, with the same labels and inputs.
/// Labels are compared as numbers, so they have to mean the same in both.
#[derive(Debug, Clone, Default)]
pub struct Dag {
    labels: Vec<u32>,
    ordered: Vec<bool>,
    /// The end of each vertex's inputs in `inputs`.
    ends: Vec<u32>,
    inputs: Vec<u32>,
}

impl Dag {
    /// Adds a vertex that reads earlier ones, and returns its number. A vertex with at most one input is the same
    /// whether it is `ordered` or not.
    ///
    /// # Panics
    /// When an input is not an earlier vertex, or the graph has 2^31 vertices or inputs.
    pub fn add(&mut self, label: u32, ordered: bool, inputs: &[u32]) -> u32 {
        let vertex = u32::try_from(self.labels.len()).expect("a graph is smaller than 2^31");
        assert!(inputs.iter().all(|&input| input < vertex), "a vertex reads earlier vertices");
        self.labels.push(label);
        self.ordered.push(ordered && inputs.len() > 1);
        self.inputs.extend_from_slice(inputs);
        self.ends.push(u32::try_from(self.inputs.len()).expect("a graph is smaller than 2^31"));
        vertex
    }

    /// Number of vertices.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no vertex.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The label of a vertex.
    pub fn label(&self, vertex: u32) -> u32 {
        self.labels[vertex as usize]
    }

    /// Whether the order of a vertex's inputs makes a difference.
    pub fn is_ordered(&self, vertex: u32) -> bool {
        self.ordered[vertex as usize]
    }

    /// What a vertex reads.
    pub fn inputs(&self, vertex: u32) -> &[u32] {
        let vertex = vertex as usize;
        let start = vertex.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        &self.inputs[start..self.ends[vertex] as usize]
    }

    /// Number of edges.
    pub(super) fn edges(&self) -> usize {
        self.inputs.len()
    }
}

/// The readers of each vertex.
pub(super) struct Readers {
    ends: Vec<u32>,
    edges: Vec<Reader>,
}

/// An edge, as the vertex that is read sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Reader {
    pub(super) vertex: u32,
    /// The position among the reader's inputs, counted from 1; 0 if their order makes no difference.
    pub(super) position: u32,
}

impl Readers {
    pub(super) fn of(dag: &Dag) -> Readers {
        let mut ends = vec![0u32; dag.len()];
        for &input in &dag.inputs {
            ends[input as usize] += 1;
        }
        let mut total = 0;
        for end in &mut ends {
            total += *end;
            // The start for now; adding the edges moves it to the end.
            *end = total - *end;
        }
        let mut edges = vec![Reader { vertex: 0, position: 0 }; dag.edges()];
        for vertex in 0..dag.len() as u32 {
            let ordered = dag.is_ordered(vertex);
            for (position, &input) in (1..).zip(dag.inputs(vertex)) {
                let place = &mut ends[input as usize];
                edges[*place as usize] =
                    Reader { vertex, position: if ordered { position } else { 0 } };
                *place += 1;
            }
        }
        Readers { ends, edges }
    }

    /// The edges to the readers of a vertex, by reader.
    pub(super) fn of_vertex(&self, vertex: u32) -> &[Reader] {
        let vertex = vertex as usize;
        let start = vertex.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        &self.edges[start..self.ends[vertex] as usize]
    }
}
