//! Predictions by the million: a table laid out for a search loop that asks about networks of the same ops over and
//! over.

use std::collections::HashMap;

use ops_catalog::{Op, OpDigest, Shape};

use super::calibration::{self, Features};
use super::{NoLatency, Predictor, Reach, footprint};
use crate::two_clock::{OpTimes, TwoClocks};

/// An op at a shape, as a [`PackedTable`] knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PackedOp(u32);

/// A latency and its interval, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Micros {
    /// Lower end of the 95% interval.
    pub low: f64,
    /// The latency.
    pub latency: f64,
    /// Upper end.
    pub high: f64,
}

/// What one op costs at one reuse distance, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Cost {
    low: f64,
    latency: f64,
    high: f64,
    clocks: OpTimes,
}

/// A table's curves at common distances, side by side. Gives the same numbers as [`Predictor`].
pub struct PackedTable {
    predictor: Predictor,
    /// Reuse distances of all curves, ascending, in bytes.
    distances: Vec<f64>,
    /// For each op, its cost at each distance.
    costs: Vec<Cost>,
    weight_bytes: Vec<f64>,
    ids: HashMap<(OpDigest, Shape), PackedOp>,
    half_width: f64,
}

impl PackedTable {
    /// An empty one: ops are packed when they are first asked for.
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
            half_width: calibration::half_width(predictor.calibration()),
            predictor,
        }
    }

    /// Packs an op at a shape, or finds it packed.
    ///
    /// # Errors
    /// Says why there is no number for it, as a prediction would.
    pub fn op(&mut self, op: &Op, shape: &Shape) -> Result<PackedOp, NoLatency> {
        let key = (op.digest().clone(), *shape);
        if let Some(&id) = self.ids.get(&key) {
            return Ok(id);
        }
        let plan = op.at(shape)?;
        let cost = |&distance: &f64| {
            let times = self.predictor.times(op, shape, distance)?;
            let clocks = times.on_two_clocks();
            Ok(Cost { low: times.low, latency: times.latency, high: times.high, clocks })
        };
        let costs: Vec<Cost> = self.distances.iter().map(cost).collect::<Result<_, NoLatency>>()?;
        let id = PackedOp(u32::try_from(self.weight_bytes.len()).map_err(|_| NoLatency::Full)?);
        self.costs.extend(costs);
        let element_bytes = self.predictor.index().table().run_config.dtype.bytes();
        self.weight_bytes.push(plan.cost.weight_bytes(element_bytes) as f64);
        self.ids.insert(key, id);
        Ok(id)
    }

    /// The latency of a network of these ops, in running order: of a sequence, or of a graph with so many merges
    /// of branches among its ops. None for an op of another table, and for a network without ops.
    pub fn predict(&self, ops: &[PackedOp], merges: usize) -> Option<Micros> {
        let known = self.weight_bytes.len();
        if ops.is_empty() || ops.iter().any(|op| op.0 as usize >= known) {
            return None;
        }
        let weights: f64 = ops.iter().map(|op| self.weight_bytes[op.0 as usize]).sum();
        let (point, share) = self.place(footprint(weights));
        let next = usize::from(share > 0.0);
        let (mut below, mut latency, mut above) = (Reach::default(), 0.0, Reach::default());
        let mut clocks = TwoClocks::default();
        for op in ops {
            let at = op.0 as usize * self.distances.len() + point;
            let (a, b) = (&self.costs[at], &self.costs[at + next]);
            let between = |a: f64, b: f64| a + (b - a) * share;
            let micros = between(a.latency, b.latency);
            latency += micros;
            below.add(micros - between(a.low, b.low));
            above.add(between(a.high, b.high) - micros);
            // The nearer point's, as for a single prediction.
            let nearest = if share < 0.5 { a } else { b };
            clocks.issue(OpTimes {
                host_micros: nearest.clocks.host_micros,
                device_micros: between(a.clocks.device_micros, b.clocks.device_micros),
            });
        }
        let ops_micros = clocks.finish(0.0);
        let features = Features { ops_micros, ops: ops.len() as f64, merges: merges as f64 };
        let estimate = calibration::apply(self.predictor.calibration(), features);
        Some(super::interval(
            estimate,
            below.micros() / latency,
            above.micros() / latency,
            self.half_width,
        ))
    }

    /// The distance at or below this one, by its index, and how far on to the next it is, 0 to 1.
    fn place(&self, distance: f64) -> (usize, f64) {
        let above = self.distances.iter().take_while(|&&d| d <= distance).count();
        if above == 0 || above == self.distances.len() {
            return (above.saturating_sub(1), 0.0);
        }
        let (a, b) = (self.distances[above - 1], self.distances[above]);
        (above - 1, (distance - a) / (b - a))
    }
}
