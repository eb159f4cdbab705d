//! The speed and the exactness of canonical hashes, for `scripts/bench hash`.
//!
//! Standard output has one line a result, with words and numbers between spaces.

mod graphs;
mod space;

use std::collections::HashSet;
use std::hint::black_box;
use std::time::{Duration, Instant};

use fastrand::Rng;
use ops_catalog::canonical::{Canonical, Dag, Role, Sketch, TopologyHash};
use ops_catalog::{Catalog, Family, Merge, Network, Value};

use self::graphs::{branches, cells, incidences, shuffled};

/// How long each speed is measured.
const MEASURED: Duration = Duration::from_secs(3);

fn main() {
    let cells: Vec<cells::Cell> = cells::all().collect();
    println!("cells {:.0}", per_second(&cells, |&cell| cells::computation(cell)));
    let classes: HashSet<_> = cells.iter().map(|&cell| cells::computation(cell)).collect();
    println!("cell_classes {}", classes.len());

    let mut random = Rng::with_seed(1);
    let graphs: Vec<Drawn> = (0..2000).map(|_| Drawn::new(20, &mut random)).collect();
    println!("graphs {:.0}", per_second(&graphs, Drawn::hash));

    let catalog = Catalog::builtin();
    let drawn = Family::Mobilenet.draw(1).take(200);
    let networks: Vec<Network> =
        drawn.map(|spec| Network::new(&spec, catalog).expect("drawn networks are valid")).collect();
    let hash = |network: &Network| Canonical::of(network, catalog).expect("they have plans");
    println!("networks {:.0}", per_second(&networks, hash));

    for (name, dag) in symmetric() {
        let start = Instant::now();
        let order = dag.canonical_order();
        let seconds = start.elapsed().as_secs_f64();
        let (exact, agrees) = (u8::from(order.exact), agrees(&dag, &mut random));
        println!("symmetric {name} {} {seconds:.6} {exact} {}", dag.len(), u8::from(agrees));
    }

    let start = Instant::now();
    let space::Counts { graphs, classes, inexact } = space::count();
    let seconds = start.elapsed().as_secs_f64();
    println!("space {graphs} {classes} {inexact} {seconds:.3}");
}

/// Calls a second on one core, over and over on the same inputs.
fn per_second<T, U>(inputs: &[T], call: impl Fn(&T) -> U) -> f64 {
    let start = Instant::now();
    let mut calls = 0;
    while start.elapsed() < MEASURED {
        for input in inputs {
            black_box(call(black_box(input)));
        }
        calls += inputs.len();
    }
    calls as f64 / start.elapsed().as_secs_f64()
}

/// A random architecture.
struct Drawn {
    sketch: Sketch,
    labels: Vec<u32>,
}

impl Drawn {
    const NAMES: [&str; 5] = ["conv1x1", "conv3x3", "conv5x5", "pool", "relu"];

    /// Nodes with one or two inputs. The last one adds what nothing reads.
    fn new(nodes: usize, random: &mut Rng) -> Drawn {
        let mut sketch = Sketch::default();
        let mut is_read = vec![false; nodes];
        for node in 0..nodes - 1 {
            let draw = |_| match random.usize(0..=node) {
                0 => Value::Input,
                other => Value::Of(other - 1),
            };
            let inputs: Vec<Value> = (0..1 + node % 2).map(draw).collect();
            for input in &inputs {
                if let Value::Of(input) = *input {
                    is_read[input] = true;
                }
            }
            sketch.add(Role::Op, Merge::Add, &inputs);
        }
        let ends = (0..nodes - 1).filter(|&node| !is_read[node]).map(Value::Of);
        sketch.add(Role::Op, Merge::Add, &ends.collect::<Vec<_>>());
        Drawn { sketch, labels: (0..nodes).map(|_| random.u32(0..5)).collect() }
    }

    fn hash(&self) -> TopologyHash {
        let wired = self.sketch.as_written(&self.labels);
        TopologyHash::of(&wired, &wired.dag.canonical_order(), "", &Drawn::NAMES)
    }
}

/// Graphs in which refinement separates little or nothing.
fn symmetric() -> Vec<(String, Dag)> {
    let mut all: Vec<(String, Dag)> = vec![
        ("branches".to_owned(), branches(9_998, 1)),
        ("chains".to_owned(), branches(1_000, 9)),
        ("cube".to_owned(), cube(12)),
        ("cycles".to_owned(), cycles(1_000, 4)),
        ("cycle".to_owned(), cycles(1, 1_000)),
        ("long-cycle".to_owned(), cycles(1, 4_000)),
    ];
    all.extend([7, 13, 23].map(|prime| (format!("plane-{prime}"), incidences(prime))));
    all
}

/// A cube of some dimensions, whose odd corners read the even ones beside them.
fn cube(dimensions: u32) -> Dag {
    let mut dag = Dag::default();
    let input = dag.add(0, false, &[]);
    let mut places = vec![0; 1 << dimensions];
    let corners = || 0..1u32 << dimensions;
    for corner in corners().filter(|corner| corner.count_ones() % 2 == 0) {
        places[corner as usize] = dag.add(1, false, &[input]);
    }
    let mut ends = Vec::new();
    for corner in corners().filter(|corner| corner.count_ones() % 2 == 1) {
        let read = (0..dimensions).map(|axis| places[(corner ^ (1 << axis)) as usize]);
        ends.push(dag.add(2, false, &read.collect::<Vec<_>>()));
    }
    dag.add(3, false, &ends);
    dag
}

/// Cycles of nodes that read the input and nodes that add two of them.
fn cycles(count: u32, length: u32) -> Dag {
    let mut dag = Dag::default();
    let input = dag.add(0, false, &[]);
    let mut ends = Vec::new();
    for _ in 0..count {
        let nodes: Vec<u32> = (0..length).map(|_| dag.add(1, false, &[input])).collect();
        for (place, &node) in nodes.iter().enumerate() {
            ends.push(dag.add(2, false, &[node, nodes[(place + 1) % nodes.len()]]));
        }
    }
    dag.add(3, false, &ends);
    dag
}

/// Whether another numbering of the graph leads to the same graph.
fn agrees(dag: &Dag, random: &mut Rng) -> bool {
    let renumbered = |dag: &Dag| {
        let order = dag.canonical_order().vertices;
        let mut places = vec![0; dag.len()];
        for (place, &vertex) in (0..).zip(&order) {
            places[vertex as usize] = place;
        }
        let vertex = |&vertex: &u32| {
            let mut read: Vec<u32> =
                dag.inputs(vertex).iter().map(|&input| places[input as usize]).collect();
            read.sort_unstable();
            (dag.label(vertex), read)
        };
        order.iter().map(vertex).collect::<Vec<_>>()
    };
    renumbered(dag) == renumbered(&shuffled(dag, random))
}
