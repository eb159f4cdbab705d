//! Work whose shapes are known, and the memory that it may need.

use anyhow::{Result, bail};
use ops_catalog::{Catalog, Cost, Network, NetworkPlan, Op, OpPlan};

use super::Work;

/// Work whose shapes are known.
pub enum Plan {
    /// An op.
    Op(OpPlan),
    /// A whole network.
    Network(Box<NetworkPlan>),
}

impl Plan {
    /// The plan of some work.
    ///
    /// # Errors
    /// When a definition is not valid, or a shape is impossible.
    pub fn new(work: &Work) -> Result<Plan> {
        Ok(match work {
            Work::Op { def, shape } => Plan::Op(Op::new(def.clone())?.at(shape)?),
            Work::Network { spec, ops } => {
                let catalog = Catalog::builtin().with_ops(ops.iter().cloned())?;
                Plan::Network(Box::new(Network::new(spec, &catalog)?.plan(&catalog)?))
            }
        })
    }

    /// Its cost.
    pub fn cost(&self) -> Cost {
        match self {
            Plan::Op(plan) => plan.cost,
            Plan::Network(plan) => plan.cost,
        }
    }
}

/// The most memory that the weights of cached work may need together, or a quarter of the memory limit where that is
/// less, since there are two workers.
///
/// It is enough for a thousand keys or a hundred mobile networks. Work that is evicted and prepared again at each
/// visit costs up to a second. Whole networks are also slower then (mobile networks by 12%, over 50 visits), because
/// their weights and activations are scattered over a fragmented heap.
const CACHE_BYTES: u64 = 4 << 30;

/// Memory that a worker may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Bytes for weights and activations of one piece of work.
    pub limit: u64,
    /// Bytes for the weights of all prepared work.
    pub cache: u64,
}

impl Budget {
    /// The budget of a worker whose work may need so many bytes of the machine's memory.
    pub fn of(memory_limit: u64) -> Budget {
        Budget { limit: memory_limit, cache: (memory_limit / 4).min(CACHE_BYTES) }
    }

    /// The bytes of the weights, in so many copies, of work that fits into memory.
    ///
    /// # Errors
    /// When it does not fit.
    pub fn check(&self, cost: Cost, copies: usize, element_bytes: u64) -> Result<u64> {
        let weights = cost.weight_bytes(element_bytes).saturating_mul(copies as u64);
        // The sum of all activations is an upper bound: most are freed before others are allocated.
        let bytes = weights.saturating_add(cost.activation_bytes(element_bytes));
        if bytes > self.limit {
            bail!(
                "it needs up to {} MiB of memory, and the limit is {} MiB",
                bytes >> 20,
                self.limit >> 20
            );
        }
        // Activations are freed after each call. Only the weights stay.
        Ok(weights)
    }
}
