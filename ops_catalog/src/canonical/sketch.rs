//! An architecture without definitions: nodes, merges and wires, as a graph to be ordered.

use super::dag::Dag;
use crate::network::Value;
use crate::spec::Merge;

/// Labels of vertices that are no node. A node's label is added to [`NODE`].
const INPUT: u32 = 0;
const ADD: u32 = 1;
const MUL: u32 = 2;
const CONCAT: u32 = 3;
const NODE: u32 = 4;

/// The text of a vertex's label, where `names` has those of nodes.
pub(super) fn label_text(label: u32, names: &[impl AsRef<str>]) -> &str {
    match label {
        INPUT => "input",
        ADD => "add",
        MUL => "mul",
        CONCAT => "concat",
        node => names[(node - NODE) as usize].as_ref(),
    }
}

/// The role of a node in what an architecture computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It computes something of its own, with its own weights if it has any.
    Op,
    /// It passes its input on.
    Identity,
    /// It gives zeros, whatever its input is.
    Zero,
}

/// An architecture as nodes and wires. What the nodes are is said by labels, which are given with it.
#[derive(Debug, Clone, Default)]
pub struct Sketch {
    roles: Vec<Role>,
    merges: Vec<Merge>,
    /// The end of each node's inputs in `inputs`.
    ends: Vec<usize>,
    inputs: Vec<Value>,
}

/// The graph of an architecture. Every vertex leads to the last.
///
/// Its vertices are the input, the nodes, and the merges of several values. Merges of one kind of the same values are
/// one vertex.
#[derive(Debug, Clone, Default)]
pub struct Wired {
    /// The graph.
    pub dag: Dag,
    /// The node of each vertex, if it is one.
    pub nodes: Vec<Option<usize>>,
}

impl Sketch {
    /// Adds a node that reads the input or earlier nodes. Several inputs are merged first.
    pub fn add(&mut self, role: Role, merge: Merge, inputs: &[Value]) -> Value {
        self.roles.push(role);
        self.merges.push(merge);
        self.inputs.extend_from_slice(inputs);
        self.ends.push(self.inputs.len());
        Value::Of(self.roles.len() - 1)
    }

    fn inputs(&self, node: usize) -> &[Value] {
        let start = node.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.inputs[start..self.ends[node]]
    }

    /// The graph as it is written. Each node has a label, and each has to lead to the last node, which is the output.
    pub fn as_written(&self, labels: &[u32]) -> Wired {
        let mut builder = Builder::new(self.roles.len());
        let input = builder.leaf(INPUT);
        let mut vertices: Vec<u32> = Vec::with_capacity(self.roles.len());
        for (node, &label) in labels.iter().enumerate() {
            let read = self.inputs(node).iter().map(|&value| match value {
                Value::Input => input,
                Value::Of(node) => vertices[node],
            });
            let read = read.collect();
            let merged = builder.merge(self.merges[node], read);
            vertices.push(builder.node(label, node, merged));
        }
        builder.wired
    }

    /// The graph of what is computed from the input:
    ///
    /// - A node that passes its input on is left out.
    /// - A sum is the multiset of what it adds, and a product that of its factors. A sum of sums is one sum.
    /// - Zeros are left out of sums. A product with zeros is zeros. In a concatenation they stay, since they take up
    ///   channels.
    /// - What does not depend on the input is constant, like a bias, and is left out of sums that do depend on it.
    /// - What does not lead to the output is left out.
    /// - Nodes stay apart even if they are equal and read the same value: each has its own weights.
    ///
    /// The label of a node whose role is [`Role::Zero`] stands for zeros of its output's shape, and `nothing` for zeros
    /// of the shape of the architecture's output. The graph of an output that does not depend on the input is a single
    /// vertex with the label `nothing`.
    pub fn computation(&self, labels: &[u32], output: Value, nothing: u32) -> Wired {
        let mut builder = Builder::new(self.roles.len());
        let input = Computed::Live(builder.leaf(INPUT));
        let mut values: Vec<Computed> = Vec::with_capacity(self.roles.len());
        let mut read = Vec::new();
        for (node, &label) in labels.iter().enumerate() {
            read.clear();
            read.extend(self.inputs(node).iter().map(|&value| match value {
                Value::Input => input,
                Value::Of(node) => values[node],
            }));
            values.push(match self.roles[node] {
                Role::Zero => Computed::Zeros(label),
                Role::Identity => builder.merge_computed(self.merges[node], &read),
                Role::Op => {
                    let read = builder.merge_computed(self.merges[node], &read);
                    let vertex = builder.vertex(read);
                    let vertex = builder.node(label, node, vertex);
                    if read.is_live() { Computed::Live(vertex) } else { Computed::Constant(vertex) }
                }
            });
        }
        let output = match output {
            Value::Input => input,
            Value::Of(node) => values[node],
        };
        match output {
            Computed::Live(vertex) => builder.wired.leading_to(vertex),
            Computed::Constant(_) | Computed::Zeros(_) => {
                let mut builder = Builder::new(1);
                builder.leaf(NODE + nothing);
                builder.wired
            }
        }
    }
}

/// A value of an architecture, as far as it depends on the input.
#[derive(Debug, Clone, Copy)]
enum Computed {
    /// Zeros, with the label of their shape.
    Zeros(u32),
    /// A vertex that does not depend on the input.
    Constant(u32),
    /// A vertex that does.
    Live(u32),
}

impl Computed {
    fn is_live(self) -> bool {
        matches!(self, Computed::Live(_))
    }

    fn is_zeros(self) -> bool {
        matches!(self, Computed::Zeros(_))
    }
}

impl Wired {
    fn add(&mut self, label: u32, ordered: bool, inputs: &[u32], node: Option<usize>) -> u32 {
        self.nodes.push(node);
        self.dag.add(label, ordered, inputs)
    }

    /// The vertices that lead to one of them.
    fn leading_to(self, output: u32) -> Wired {
        let last = output as usize;
        let mut leads = vec![false; last + 1];
        leads[last] = true;
        for vertex in (0..=output).rev() {
            if leads[vertex as usize] {
                self.dag.inputs(vertex).iter().for_each(|&input| leads[input as usize] = true);
            }
        }
        if self.dag.len() == last + 1 && leads.iter().all(|&leads| leads) {
            return self;
        }
        let mut kept = Wired::default();
        let mut places = vec![0; last + 1];
        let mut inputs = Vec::new();
        for vertex in (0..=output).filter(|&vertex| leads[vertex as usize]) {
            inputs.clear();
            inputs.extend(self.dag.inputs(vertex).iter().map(|&input| places[input as usize]));
            let (label, ordered) = (self.dag.label(vertex), self.dag.is_ordered(vertex));
            places[vertex as usize] =
                kept.add(label, ordered, &inputs, self.nodes[vertex as usize]);
        }
        kept
    }
}

/// A graph under construction.
struct Builder {
    wired: Wired,
    /// Vertices that are no node, in lists: those of one list have the same first input, or none. Each has the one that
    /// was added before it.
    last: Vec<u32>,
    before: Vec<u32>,
}

/// The end of a list.
const NONE: u32 = u32::MAX;

impl Builder {
    fn new(nodes: usize) -> Builder {
        let (mut last, before) = (Vec::with_capacity(2 * nodes), Vec::with_capacity(2 * nodes));
        last.push(NONE);
        Builder { wired: Wired::default(), last, before }
    }

    fn add(&mut self, label: u32, ordered: bool, inputs: &[u32], node: Option<usize>) -> u32 {
        self.last.push(NONE);
        self.before.push(NONE);
        self.wired.add(label, ordered, inputs, node)
    }

    fn node(&mut self, label: u32, node: usize, input: u32) -> u32 {
        self.add(NODE + label, false, &[input], Some(node))
    }

    fn leaf(&mut self, label: u32) -> u32 {
        self.value(label, false, &[])
    }

    /// The vertex with these inputs, which is added if it is new.
    fn value(&mut self, label: u32, ordered: bool, inputs: &[u32]) -> u32 {
        let list = inputs.first().map_or(0, |&input| input as usize + 1);
        let mut known = self.last[list];
        while known != NONE {
            let dag = &self.wired.dag;
            if dag.label(known) == label && dag.inputs(known) == inputs {
                return known;
            }
            known = self.before[known as usize];
        }
        let vertex = self.add(label, ordered, inputs, None);
        self.before[vertex as usize] = std::mem::replace(&mut self.last[list], vertex);
        vertex
    }

    fn merge(&mut self, merge: Merge, mut inputs: Vec<u32>) -> u32 {
        if let [single] = inputs[..] {
            return single;
        }
        if merge != Merge::Concat {
            inputs.sort_unstable();
        }
        self.value(label_of(merge), merge == Merge::Concat, &inputs)
    }

    /// The vertex of a value.
    fn vertex(&mut self, value: Computed) -> u32 {
        match value {
            Computed::Zeros(label) => self.leaf(NODE + label),
            Computed::Constant(vertex) | Computed::Live(vertex) => vertex,
        }
    }

    /// A merge of values, simplified.
    fn merge_computed(&mut self, merge: Merge, inputs: &[Computed]) -> Computed {
        if let [single] = *inputs {
            return single;
        }
        let live = inputs.iter().any(|value| value.is_live());
        let zeros = inputs.iter().find(|value| value.is_zeros());
        let decides = match merge {
            Merge::Add => inputs.iter().all(|value| value.is_zeros()),
            Merge::Mul => zeros.is_some(),
            Merge::Concat => false,
        };
        if let (true, Some(&zeros)) = (decides, zeros) {
            return zeros;
        }
        let mut read = Vec::with_capacity(inputs.len());
        for &value in inputs {
            let is_kept =
                merge != Merge::Add || if live { value.is_live() } else { !value.is_zeros() };
            if !is_kept {
                continue;
            }
            let vertex = self.vertex(value);
            if self.wired.dag.label(vertex) == label_of(merge) {
                read.extend_from_slice(self.wired.dag.inputs(vertex));
            } else {
                read.push(vertex);
            }
        }
        let vertex = self.merge(merge, read);
        if live { Computed::Live(vertex) } else { Computed::Constant(vertex) }
    }
}

fn label_of(merge: Merge) -> u32 {
    match merge {
        Merge::Add => ADD,
        Merge::Mul => MUL,
        Merge::Concat => CONCAT,
    }
}
