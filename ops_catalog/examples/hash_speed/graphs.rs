//! Graphs and cells, for the benchmark and for the tests of the catalog.

use ops_catalog::canonical::Dag;

/// The same graph with its vertices in another order, and inputs whose order makes no difference in another too.
pub fn shuffled(dag: &Dag, random: &mut fastrand::Rng) -> Dag {
    let count = dag.len() as u32;
    let mut waits: Vec<usize> = (0..count).map(|vertex| dag.inputs(vertex).len()).collect();
    let mut readers: Vec<Vec<u32>> = vec![Vec::new(); dag.len()];
    for vertex in 0..count {
        dag.inputs(vertex).iter().for_each(|&input| readers[input as usize].push(vertex));
    }
    let mut ready: Vec<u32> = (0..count).filter(|&vertex| waits[vertex as usize] == 0).collect();
    let mut places = vec![0; dag.len()];
    let mut other = Dag::default();
    while !ready.is_empty() {
        let vertex = ready.swap_remove(random.usize(0..ready.len()));
        let mut inputs: Vec<u32> =
            dag.inputs(vertex).iter().map(|&input| places[input as usize]).collect();
        if !dag.is_ordered(vertex) {
            random.shuffle(&mut inputs);
        }
        places[vertex as usize] = other.add(dag.label(vertex), dag.is_ordered(vertex), &inputs);
        for &reader in &readers[vertex as usize] {
            waits[reader as usize] -= 1;
            if waits[reader as usize] == 0 {
                ready.push(reader);
            }
        }
    }
    other
}

/// The projective plane over the integers modulo a prime, as a graph of two layers: `prime^2 + prime + 1` points, and
/// as many lines, each of which reads the points on it.
pub fn incidences(prime: u32) -> Dag {
    let mut triples = vec![[1, 0, 0]];
    triples.extend((0..prime).map(|x| [x, 1, 0]));
    triples.extend((0..prime).flat_map(|x| (0..prime).map(move |y| [x, y, 1])));
    let mut dag = Dag::default();
    let input = dag.add(0, false, &[]);
    let points: Vec<u32> = triples.iter().map(|_| dag.add(1, false, &[input])).collect();
    let line = |line: &[u32; 3]| {
        let is_on = |point: &[u32; 3]| {
            (0..3).map(|axis| line[axis] * point[axis]).sum::<u32>().is_multiple_of(prime)
        };
        let read = points.iter().zip(&triples).filter(|(_, point)| is_on(point));
        let read: Vec<u32> = read.map(|(&point, _)| point).collect();
        dag.add(2, false, &read)
    };
    let lines: Vec<u32> = triples.iter().map(line).collect();
    dag.add(3, false, &lines);
    dag
}

/// Equal branches between an input and a sum, each a chain of equal nodes.
pub fn branches(count: u32, length: u32) -> Dag {
    let mut dag = Dag::default();
    let input = dag.add(0, false, &[]);
    let branch = |_| (0..length).fold(input, |before, _| dag.add(1, false, &[before]));
    let ends: Vec<u32> = (0..count).map(branch).collect();
    dag.add(2, false, &ends);
    dag
}

/// The cells of NAS-Bench-201 (arXiv 2001.00326).
pub mod cells {
    use ops_catalog::canonical::{ComputationHash, Role, Sketch};
    use ops_catalog::{Merge, Value};

    /// The ops of the edges 0 to 1, 0 to 2, 1 to 2, 0 to 3, 1 to 3 and 2 to 3, by their numbers in the benchmark: `none`,
    /// `skip_connect`, `nor_conv_1x1`, `nor_conv_3x3`, `avg_pool_3x3`.
    pub type Cell = [u32; 6];

    const OPS: u32 = 5;
    const NAMES: [&str; 5] =
        ["none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"];
    /// Edges by the node that they lead to: the node that each comes from.
    const FROM: [&[usize]; 3] = [&[0], &[0, 1], &[0, 1, 2]];

    /// All 15,625 cells.
    pub fn all() -> impl Iterator<Item = Cell> {
        (0..OPS.pow(6))
            .map(|number| std::array::from_fn(|edge| number / OPS.pow(edge as u32) % OPS))
    }

    /// The hash of what a cell computes. A node of the cell is the sum of the edges that lead to it.
    pub fn computation(cell: Cell) -> ComputationHash {
        let mut sketch = Sketch::default();
        let mut sums: [Vec<Value>; 4] = [vec![Value::Input], vec![], vec![], vec![]];
        let mut labels = cell.iter();
        let mut all = Vec::with_capacity(7);
        for (to, from) in (1..).zip(FROM) {
            for (&from, &op) in from.iter().zip(&mut labels) {
                let role = match op {
                    0 => Role::Zero,
                    1 => Role::Identity,
                    _ => Role::Op,
                };
                all.push(op);
                let edge = sketch.add(role, Merge::Add, &sums[from]);
                sums[to].push(edge);
            }
        }
        let output = sketch.add(Role::Identity, Merge::Add, &sums[3]);
        all.push(1);
        let wired = sketch.computation(&all, output, 0);
        ComputationHash::of(&wired, &wired.dag.canonical_order(), "", &NAMES)
    }
}
