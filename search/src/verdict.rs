//! The filter's rules: whether a candidate is accepted, and why not.

use std::collections::BTreeMap;

use latlas_shared::{MissingOp, Prediction};
use ops_catalog::{NetworkPlan, OpKey};
use serde::Serialize;

use crate::constraints::{Constraints, LatencyBound};

/// The decision about a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Its latency is known, and it satisfies every constraint.
    Accepted,
    /// It violates a constraint.
    Rejected,
    /// It violates no constraint that can be checked, but its latency is unknown.
    Unknown,
    /// It is not a network.
    Invalid,
}

/// One reason for a decision other than acceptance.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Reason {
    /// A constraint is violated.
    Broken(Broken),
    /// Rows that are not in the table and cannot be estimated.
    Missing {
        /// Their keys.
        missing: Vec<OpKey>,
    },
    /// Why it is not a network.
    Invalid {
        /// The place and the problem.
        invalid: String,
    },
}

/// A constraint that a candidate violates.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Broken {
    /// Name of the constraint.
    pub constraint: &'static str,
    /// The op of the constraint, for `max_per_op`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub op: Option<String>,
    /// The candidate's value.
    pub value: Amount,
    /// The limit.
    pub limit: Amount,
}

/// A number in the unit of its constraint.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Amount {
    /// A count.
    Count(u64),
    /// Milliseconds.
    Millis(f64),
}

/// A decision and its reasons; an accepted candidate has none.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// The decision.
    pub decision: Decision,
    /// The reasons.
    pub reasons: Vec<Reason>,
}

impl Verdict {
    /// The verdict on input that is not a network.
    pub fn invalid(problem: String) -> Verdict {
        Verdict { decision: Decision::Invalid, reasons: vec![Reason::Invalid { invalid: problem }] }
    }
}

/// Judges a candidate by its plan and its prediction, or by the rows that a prediction lacks.
///
/// Every violated constraint is a reason, so that a search can tell how far off a candidate is. A violated constraint
/// rejects the candidate, whether rows are missing or not. Without one, missing rows make it unknown, even if no
/// constraint is about latency.
pub fn judge(
    constraints: &Constraints,
    plan: &NetworkPlan,
    prediction: Result<&Prediction, &[MissingOp]>,
) -> Verdict {
    let mut reasons = structure(constraints, plan);
    if let (Ok(prediction), Some(limit)) = (prediction, constraints.max_latency_ms) {
        let micros = match constraints.latency_bound {
            LatencyBound::Estimate => prediction.latency_micros,
            LatencyBound::Upper => prediction.high_micros,
        };
        let value = micros / 1e3;
        // A value that cannot be compared violates the limit.
        let kept = value <= limit;
        if !kept {
            let (value, limit) = (Amount::Millis(value), Amount::Millis(limit));
            reasons.push(Broken { constraint: "max_latency_ms", op: None, value, limit });
        }
    }
    let broken: Vec<Reason> = reasons.into_iter().map(Reason::Broken).collect();
    match prediction {
        _ if !broken.is_empty() => Verdict { decision: Decision::Rejected, reasons: broken },
        Ok(_) => Verdict { decision: Decision::Accepted, reasons: broken },
        Err(missing) => {
            let missing = missing.iter().map(|op| op.key.clone()).collect();
            let reasons = vec![Reason::Missing { missing }];
            Verdict { decision: Decision::Unknown, reasons }
        }
    }
}

/// The violated constraints that need no table, in a fixed order.
fn structure(constraints: &Constraints, plan: &NetworkPlan) -> Vec<Broken> {
    let mut broken = Vec::new();
    let mut check = |constraint, op: Option<&str>, value: u64, limit: Option<u64>| {
        if let Some(limit) = limit.filter(|&limit| value > limit) {
            let (value, limit) = (Amount::Count(value), Amount::Count(limit));
            broken.push(Broken { constraint, op: op.map(str::to_owned), value, limit });
        }
    };
    // Additions and concatenations that follow from a graph's wiring are not layers.
    let written = plan.steps.iter().filter(|step| step.merge.is_none());
    let mut per_op: BTreeMap<&str, u64> = BTreeMap::new();
    let mut layers = 0;
    for step in written {
        layers += 1;
        *per_op.entry(step.op.name()).or_default() += 1;
    }
    check("max_layers", None, layers, constraints.max_layers);
    for (op, &limit) in &constraints.max_per_op {
        let count = per_op.get(op.as_str()).copied().unwrap_or_default();
        check("max_per_op", Some(op), count, Some(limit));
    }
    check("max_flops", None, plan.cost.flops, constraints.max_flops);
    check("max_params", None, plan.cost.params, constraints.max_params);
    broken
}

#[cfg(test)]
mod tests;
