//! Gates: constraints and a table, which judge one candidate after the other.

mod space;

use latlas_predict::{Micros, Predictor};
use ops_catalog::NetworkPlan;

use crate::constraints::Constraints;
use crate::verdict::{Quantities, Verdict, judge};

pub use space::{Judged, Scratch, SpaceGate};

/// A gate for networks.
pub struct Gate {
    constraints: Constraints,
    predictor: Predictor,
}

/// A candidate's verdict and numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Explained {
    /// The verdict, with every reason.
    pub verdict: Verdict,
    /// The latency, if no row is missing.
    pub latency: Option<Micros>,
    /// Multiply-accumulates, if it is a network.
    pub flops: Option<u64>,
    /// Parameters, if it is a network.
    pub params: Option<u64>,
}

impl Explained {
    /// A candidate that is not a network.
    pub fn invalid(problem: String) -> Explained {
        Explained { verdict: Verdict::invalid(problem), latency: None, flops: None, params: None }
    }
}

impl Gate {
    /// A gate with these constraints.
    pub fn new(constraints: Constraints, predictor: Predictor) -> Gate {
        Gate { constraints, predictor }
    }

    /// What predicts latencies.
    pub fn predictor(&self) -> &Predictor {
        &self.predictor
    }

    /// Judges a network.
    pub fn judge(&self, plan: &NetworkPlan) -> Explained {
        let latency = self.predictor.predict_plan(plan).map(|p| Micros {
            low: p.low_micros,
            latency: p.latency_micros,
            high: p.high_micros,
        });
        let quantities = Quantities::of(plan, &self.constraints);
        let known = latency.as_ref().ok().copied();
        let latency = latency.map_err(|missing| missing.into_iter().map(|op| op.key).collect());
        Explained {
            verdict: judge(&self.constraints, &quantities, latency),
            latency: known,
            flops: Some(quantities.flops),
            params: Some(quantities.params),
        }
    }
}

#[cfg(test)]
mod tests;
