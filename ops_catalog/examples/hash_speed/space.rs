//! The space of NAS-Bench-101 (arXiv 1902.09635): cells of at most seven vertices and nine edges, whose inner vertices
//! have one of three ops, and all of whose vertices lie between input and output.

use std::collections::HashSet;

use ops_catalog::canonical::{Role, Sketch, TopologyHash};
use ops_catalog::{Merge, Value};

const MAX_VERTICES: u32 = 7;
const MAX_EDGES: u32 = 9;
const NAMES: [&str; 4] = ["conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3", "output"];
const OUTPUT: u32 = 3;

/// What the space has.
pub struct Counts {
    /// Graphs with a label on each vertex, as they are enumerated.
    pub graphs: u64,
    /// Different hashes of them.
    pub classes: usize,
    /// Graphs whose hash is not exact.
    pub inexact: u64,
}

/// Hashes every graph of the space.
pub fn count() -> Counts {
    let mut classes = HashSet::new();
    let mut counts = Counts { graphs: 0, classes: 0, inexact: 0 };
    for vertices in 2..=MAX_VERTICES {
        for edges in 0..1u32 << (vertices * (vertices - 1) / 2) {
            if edges.count_ones() > MAX_EDGES {
                continue;
            }
            let Some(sketch) = sketch(vertices, edges) else { continue };
            let inner = vertices - 2;
            for labelling in 0..3u32.pow(inner) {
                let labels = (0..inner).map(|vertex| labelling / 3u32.pow(vertex) % 3);
                let labels: Vec<u32> = labels.chain([OUTPUT]).collect();
                let wired = sketch.as_written(&labels);
                let order = wired.dag.canonical_order();
                counts.graphs += 1;
                counts.inexact += u64::from(!order.exact);
                classes.insert(TopologyHash::of(&wired, &order, "", &NAMES));
            }
        }
    }
    counts.classes = classes.len();
    counts
}

/// The graph whose edge from `x` to `y` is the bit `x + y * (y - 1) / 2`. None if a vertex other than the input reads
/// nothing, or one other than the output is not read.
fn sketch(vertices: u32, edges: u32) -> Option<Sketch> {
    let reads = |y: u32| edges >> (y * (y - 1) / 2) & ((1 << y) - 1);
    let mut is_read = 0;
    let mut sketch = Sketch::default();
    for y in 1..vertices {
        let reads = reads(y);
        if reads == 0 {
            return None;
        }
        is_read |= reads;
        let inputs = (0..y).filter(|x| reads >> x & 1 == 1).map(|x| match x {
            0 => Value::Input,
            x => Value::Of(x as usize - 1),
        });
        sketch.add(Role::Op, Merge::Add, &inputs.collect::<Vec<_>>());
    }
    (is_read == (1 << (vertices - 1)) - 1).then_some(sketch)
}
