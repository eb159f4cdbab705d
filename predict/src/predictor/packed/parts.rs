//! Sums over parts of networks, which can be added in any order: for a search that knows a network as a sequence of
//! parts, and asks only for its estimate.

use super::{PackedOp, PackedTable, Place};
use crate::predictor::Predictor;

/// For each part of networks, sums over its ops.
#[derive(Debug, Default)]
pub struct PartSums {
    /// Bytes of weights and number of ops.
    heads: Vec<[f64; 2]>,
    /// For each distance of the table, the sum of the latencies and of the differences between median and quiet
    /// quantile, in microseconds.
    sums: Vec<[f64; 2]>,
}

impl PartSums {
    /// No part yet.
    pub fn new(_table: &PackedTable) -> PartSums {
        PartSums::default()
    }

    /// Adds a part. Parts are numbered from 0 in the order in which they are added.
    pub fn push(&mut self, table: &PackedTable, ops: &[PackedOp]) {
        let weights = ops.iter().map(|op| table.weight_bytes[op.0 as usize]).sum();
        self.heads.push([weights, ops.len() as f64]);
        for point in 0..table.distances.len() {
            let mut sum = [0.0; 2];
            for op in ops {
                let cost = &table.costs[op.0 as usize * table.distances.len() + point];
                sum[0] += cost.latency;
                sum[1] += cost.unquiet;
            }
            self.sums.push(sum);
        }
    }

    /// The estimate of the latency of a network of these parts, in microseconds. It differs from a prediction by
    /// rounding only, if the table [is additive](PackedTable::is_additive).
    pub fn estimate(&self, table: &PackedTable, parts: &[u32], merges: u32) -> f64 {
        let calibration = table.predictor.calibration();
        let [mut weights, mut ops] = [0.0; 2];
        for &part in parts {
            let head = &self.heads[part as usize];
            weights += head[0];
            ops += head[1];
        }
        let footprint = Predictor::footprint_bytes(weights, calibration.footprint_mib);
        let Place { point, share, per_mib } = table.place(footprint);
        let next = usize::from(per_mib > 0.0);
        let width = table.distances.len();
        let mut near = [0.0; 4];
        for &part in parts {
            let at = part as usize * width + point;
            let (a, b) = (&self.sums[at], &self.sums[at + next]);
            near[0] += a[0];
            near[1] += a[1];
            near[2] += b[0];
            near[3] += b[1];
        }
        let latency = near[0] + (near[2] - near[0]) * share;
        let unquiet = near[1] + (near[3] - near[1]) * share;
        let micros = calibration.scale * latency
            + calibration.unquiet * unquiet
            + calibration.per_op_micros * ops
            + calibration.per_merge_micros * f64::from(merges);
        micros.max(latency / 10.0)
    }
}
