//! Bulk prediction: a table layout for a search loop that asks for many networks of the same ops.

mod parts;

use std::collections::HashMap;

use ops_catalog::{Op, OpDigest, Shape};

use super::calibration::Micros;
use super::sums::{OpCost, Sums};
use super::{MIB, NoLatency, Predictor};
use crate::two_clock::OpTimes;

pub use parts::PartSums;

/// An op at a shape, in a [`PackedTable`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PackedOp(u32);

/// A table's curves at common distances, in one array. Gives the same numbers as [`Predictor`].
pub struct PackedTable {
    predictor: Predictor,
    /// Reuse distances of all curves, ascending, in bytes.
    distances: Vec<f64>,
    /// For each op, its cost at each distance.
    costs: Vec<OpCost>,
    weight_bytes: Vec<f64>,
    ids: HashMap<(OpDigest, Shape), PackedOp>,
}

impl PackedTable {
    /// An empty table: ops are packed at their first use.
    pub fn new(predictor: Predictor) -> PackedTable {
        let curves = predictor.index().table().rows.iter().flat_map(|row| &row.curve);
        let mut distances: Vec<u64> = curves.map(|point| point.reuse_distance_bytes).collect();
        distances.sort_unstable();
        distances.dedup();
        PackedTable {
            distances: distances.into_iter().map(|bytes| bytes as f64).collect(),
            costs: Vec::new(),
            weight_bytes: Vec::new(),
            ids: HashMap::new(),
            predictor,
        }
    }

    /// Packs an op at a shape, or finds it if it is already packed.
    ///
    /// # Errors
    /// The reason why there is no number for it, as in a prediction.
    pub fn op(&mut self, op: &Op, shape: &Shape) -> Result<PackedOp, NoLatency> {
        let key = (op.digest().clone(), *shape);
        if let Some(&id) = self.ids.get(&key) {
            return Ok(id);
        }
        let plan = op.at(shape)?;
        let cost = |&distance: &f64| Ok(self.predictor.times(op, shape, distance)?.cost());
        let costs: Vec<OpCost> =
            self.distances.iter().map(cost).collect::<Result<_, NoLatency>>()?;
        let id = PackedOp(u32::try_from(self.weight_bytes.len()).map_err(|_| NoLatency::Full)?);
        self.costs.extend(costs);
        let element_bytes = self.predictor.index().table().run_config.dtype.bytes();
        self.weight_bytes.push(plan.cost.weight_bytes(element_bytes) as f64);
        self.ids.insert(key, id);
        Ok(id)
    }

    /// The latency of a network of these ops, in running order. The network is a sequence, or a graph with this many
    /// merges of branches among its ops. None for an op of another table, and for a network without ops.
    pub fn predict(&self, ops: &[PackedOp], merges: usize) -> Option<Micros> {
        let known = self.weight_bytes.len();
        if ops.is_empty() || ops.iter().any(|op| op.0 as usize >= known) {
            return None;
        }
        let calibration = self.predictor.calibration();
        let weights: f64 = ops.iter().map(|op| self.weight_bytes[op.0 as usize]).sum();
        let Place { point, share, per_mib } =
            self.place(Predictor::footprint_bytes(weights, calibration.footprint_mib));
        let next = usize::from(per_mib > 0.0);
        let mut sums = Sums::default();
        let mut last = None;
        for op in ops {
            let at = op.0 as usize * self.distances.len() + point;
            let (a, b) = (&self.costs[at], &self.costs[at + next]);
            let between = |a: f64, b: f64| a + (b - a) * share;
            // The nearer point's host time, as in a single prediction.
            let nearest = if share < 0.5 { a } else { b };
            let cost = OpCost {
                latency: between(a.latency, b.latency),
                error: between(a.error, b.error),
                unquiet: between(a.unquiet, b.unquiet),
                clocks: OpTimes {
                    host_micros: nearest.clocks.host_micros,
                    device_micros: between(a.clocks.device_micros, b.clocks.device_micros),
                },
            };
            sums.add(&cost, (b.latency - a.latency) * per_mib, last == Some(op));
            last = Some(op);
        }
        Some(sums.micros(merges as f64, calibration))
    }

    /// Whether the latency of a network is a function of sums over its ops. On a GPU it is not, since host and device
    /// work at the same time.
    pub fn is_additive(&self) -> bool {
        self.costs.iter().all(|cost| cost.clocks.host_micros == 0.0)
    }

    fn place(&self, distance: f64) -> Place {
        let above = self.distances.iter().take_while(|&&d| d <= distance).count();
        if above == 0 || above == self.distances.len() {
            return Place { point: above.saturating_sub(1), share: 0.0, per_mib: 0.0 };
        }
        let (a, b) = (self.distances[above - 1], self.distances[above]);
        Place { point: above - 1, share: (distance - a) / (b - a), per_mib: MIB / (b - a) }
    }
}

/// The position of a reuse distance among those of the curves.
struct Place {
    /// Index of the nearest distance at or below it.
    point: usize,
    /// Fraction of the way to the next distance, 0 to 1.
    share: f64,
    /// One over the MiB between the two distances; 0 beyond the ends, where curves are constant.
    per_mib: f64,
}
