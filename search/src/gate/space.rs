//! A gate for genotypes of one space, for millions of candidates a second.

use std::collections::HashSet;
use std::sync::Arc;

use latlas_predict::{Micros, NoLatency, PackedOp, PackedTable, PartSums, Predictor};
use ops_catalog::arch_space::{CompiledSpace, Stopped};
use ops_catalog::{Invalid, OpKey};

use super::Explained;
use crate::constraints::{Constraints, LatencyBound};
use crate::verdict::{Codes, Decision, Quantities, bounded_ms, codes, judge};

/// Sums of parts are taken in another order than a prediction's. They decide only where they are further from the limit
/// than this share of it, which is far more than rounding can be.
const ROUNDING: f64 = 1e-9;

/// A gate for the genotypes of a space. It gives the same verdicts and numbers as [`super::Gate`] gives for their
/// networks.
pub struct SpaceGate {
    space: Arc<CompiledSpace>,
    constraints: Constraints,
    table: PackedTable,
    /// The packed op of each key of the space; none if its row is missing.
    packed: Vec<Option<PackedOp>>,
    parts: Vec<PartQuantities>,
    /// For each part, how often it has each op of `max_per_op`.
    per_op: Vec<u64>,
    /// The sums of latencies of each part, where the latency of a network is a function of them.
    sums: Option<PartSums>,
}

/// What one part of a genotype adds.
#[derive(Clone, Copy)]
struct PartQuantities {
    flops: u64,
    params: u64,
    layers: u32,
    merges: u32,
    missing: bool,
}

/// The memory of a judgement, to be used again for the next one.
#[derive(Debug, Default)]
pub struct Scratch {
    parts: Vec<u32>,
    keys: Vec<u32>,
    ops: Vec<PackedOp>,
    quantities: Quantities,
}

/// A judgement without words.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Judged {
    /// The reasons.
    pub codes: Codes,
    /// The latency, if no row is missing.
    pub latency: Option<Micros>,
    /// Multiply-accumulates; 0 for what is not a network.
    pub flops: u64,
    /// Parameters; 0 for what is not a network.
    pub params: u64,
}

impl Judged {
    /// The decision.
    pub fn decision(&self) -> Decision {
        self.codes.decision()
    }
}

/// Sums over a walk.
struct Walked {
    merges: u32,
    missing: bool,
}

impl SpaceGate {
    /// A gate with these constraints.
    ///
    /// # Errors
    /// When the table cannot hold the keys of the space.
    pub fn new(
        space: Arc<CompiledSpace>,
        constraints: Constraints,
        predictor: Predictor,
    ) -> Result<SpaceGate, NoLatency> {
        let mut table = PackedTable::new(predictor);
        let mut packed = Vec::with_capacity(space.keys().len());
        for key in space.keys() {
            packed.push(match table.op(&key.op, &key.shape) {
                Ok(op) => Some(op),
                Err(NoLatency::Full) => return Err(NoLatency::Full),
                Err(_) => None,
            });
        }
        let limited: Vec<Option<u32>> = constraints
            .max_per_op
            .keys()
            .map(|name| space.ops().iter().position(|op| op.name() == name))
            .map(|at| at.and_then(|at| u32::try_from(at).ok()))
            .collect();
        let mut parts = Vec::with_capacity(space.parts());
        let mut per_op = Vec::with_capacity(space.parts() * limited.len());
        let mut sums = PartSums::new(&table);
        let mut ops = Vec::new();
        for part in space.all_parts() {
            ops.clear();
            ops.extend(part.keys.iter().filter_map(|&key| packed[key as usize]));
            let missing = ops.len() < part.keys.len();
            sums.push(&table, &ops);
            parts.push(PartQuantities {
                flops: part.cost.flops,
                params: part.cost.params,
                layers: part.layers,
                merges: part.merges,
                missing,
            });
            for op in &limited {
                let count = part.ops.iter().find(|(index, _)| Some(*index) == *op);
                per_op.push(count.map_or(0, |(_, count)| u64::from(*count)));
            }
        }
        let additive = table.is_additive() && constraints.latency_bound == LatencyBound::Estimate;
        let sums = additive.then_some(sums);
        Ok(SpaceGate { space, constraints, table, packed, parts, per_op, sums })
    }

    /// The space.
    pub fn space(&self) -> &CompiledSpace {
        &self.space
    }

    /// The number of the space's keys that have no row.
    pub fn missing_keys(&self) -> usize {
        self.packed.iter().filter(|op| op.is_none()).count()
    }

    /// Judges the letters of a genotype, with every reason and the interval.
    pub fn judge(&self, letters: &[u8], scratch: &mut Scratch) -> Judged {
        match self.walk(letters, scratch) {
            Ok(walked) => self.judge_walked(letters, &walked, scratch),
            Err(_) => Judged { codes: Codes::INVALID, latency: None, flops: 0, params: 0 },
        }
    }

    fn judge_walked(&self, letters: &[u8], walked: &Walked, scratch: &mut Scratch) -> Judged {
        let latency = self.latency(letters, walked, scratch);
        let Quantities { flops, params, .. } = scratch.quantities;
        let codes = codes(&self.constraints, &scratch.quantities, latency.as_ref());
        Judged { codes, latency, flops, params }
    }

    /// The decision alone, which needs less time.
    pub fn decide(&self, letters: &[u8], scratch: &mut Scratch) -> Decision {
        let Ok(walked) = self.walk(letters, scratch) else { return Decision::Invalid };
        let (Some(sums), false) = (&self.sums, walked.missing) else {
            return self.judge_walked(letters, &walked, scratch).decision();
        };
        let micros = sums.estimate(&self.table, &scratch.parts, walked.merges);
        let near = Micros { low: micros, latency: micros, high: micros };
        let ms = bounded_ms(&self.constraints, &near);
        let limit = self.constraints.max_latency_ms;
        if limit.is_some_and(|limit| (ms - limit).abs() <= ROUNDING * limit) {
            return self.judge_walked(letters, &walked, scratch).decision();
        }
        codes(&self.constraints, &scratch.quantities, Some(&near)).decision()
    }

    /// Judges the letters of a genotype in words.
    pub fn explain(&self, letters: &[u8], scratch: &mut Scratch) -> Explained {
        let Ok(walked) = self.walk(letters, scratch) else {
            return Explained::invalid(self.space.explain(letters).to_string());
        };
        let latency = self.latency(letters, &walked, scratch);
        let found = match latency {
            Some(latency) => Ok(latency),
            None => match self.missing(letters, &mut scratch.keys) {
                Ok(missing) => Err(missing),
                Err(problem) => return Explained::invalid(problem.to_string()),
            },
        };
        Explained {
            verdict: judge(&self.constraints, &scratch.quantities, found),
            latency,
            flops: Some(scratch.quantities.flops),
            params: Some(scratch.quantities.params),
        }
    }

    /// The parts and the quantities of a genotype.
    #[inline]
    fn walk(&self, letters: &[u8], scratch: &mut Scratch) -> Result<Walked, Stopped> {
        let Scratch { parts, quantities, .. } = scratch;
        parts.clear();
        let (mut flops, mut params, mut layers, mut merges) = (0, 0, 0, 0);
        let mut missing = false;
        self.space.walk(letters, |part| {
            let quantities = &self.parts[part.index()];
            flops += quantities.flops;
            params += quantities.params;
            layers += u64::from(quantities.layers);
            merges += quantities.merges;
            missing |= quantities.missing;
            parts.push(part.number());
        })?;
        (quantities.flops, quantities.params, quantities.layers) = (flops, params, layers);
        let limited = self.constraints.max_per_op.len();
        quantities.per_op.clear();
        quantities.per_op.resize(limited, 0);
        if limited > 0 {
            for &part in parts.iter() {
                let counts = &self.per_op[part as usize * limited..][..limited];
                quantities.per_op.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
            }
        }
        Ok(Walked { merges, missing })
    }

    /// The latency, in the same order of sums as a prediction.
    fn latency(&self, letters: &[u8], walked: &Walked, scratch: &mut Scratch) -> Option<Micros> {
        if walked.missing {
            return None;
        }
        let Scratch { keys, ops, .. } = scratch;
        self.space.running_keys(letters, keys).ok()?;
        ops.clear();
        for &key in keys.iter() {
            ops.push(self.packed[key as usize]?);
        }
        self.table.predict(ops, walked.merges as usize)
    }

    /// The keys without a row, each once.
    fn missing(&self, letters: &[u8], keys: &mut Vec<u32>) -> Result<Vec<OpKey>, Invalid> {
        self.space.running_keys(letters, keys)?;
        let mut told = HashSet::new();
        let lacking = keys.iter().map(|&key| key as usize);
        let lacking = lacking.filter(|&key| self.packed[key].is_none() && told.insert(key));
        Ok(lacking.map(|key| self.space.keys()[key].key()).collect())
    }
}
