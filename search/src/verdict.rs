//! The filter's rules: whether a candidate is accepted, and why not.

use std::fmt;

use latlas_predict::Micros;
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

/// What constraints limit, beside the latency.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Quantities {
    /// Layers or nodes, in the author's form.
    pub layers: u64,
    /// Multiply-accumulates.
    pub flops: u64,
    /// Parameters.
    pub params: u64,
    /// Layers or nodes of each op of [`Constraints::max_per_op`], in its order.
    pub per_op: Vec<u64>,
}

impl Quantities {
    /// Those of a network.
    pub fn of(plan: &NetworkPlan, constraints: &Constraints) -> Quantities {
        // Additions and concatenations that follow from a graph's wiring are not layers.
        let written = || plan.steps.iter().filter(|step| step.merge.is_none());
        let of_op = |name: &String| written().filter(|step| step.op.name() == name).count() as u64;
        Quantities {
            layers: written().count() as u64,
            flops: plan.cost.flops,
            params: plan.cost.params,
            per_op: constraints.max_per_op.keys().map(of_op).collect(),
        }
    }
}

/// The kinds of reasons for a decision other than acceptance, as a set of bits, so that a search can read them without
/// text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Codes(pub u8);

impl Codes {
    /// `max_layers` is violated.
    pub const MAX_LAYERS: Codes = Codes(1);
    /// `max_per_op` is violated.
    pub const MAX_PER_OP: Codes = Codes(1 << 1);
    /// `max_flops` is violated.
    pub const MAX_FLOPS: Codes = Codes(1 << 2);
    /// `max_params` is violated.
    pub const MAX_PARAMS: Codes = Codes(1 << 3);
    /// `max_latency_ms` is violated.
    pub const MAX_LATENCY: Codes = Codes(1 << 4);
    /// Rows are missing.
    pub const MISSING: Codes = Codes(1 << 5);
    /// It is not a network.
    pub const INVALID: Codes = Codes(1 << 6);

    /// Every code with its name, in the order of the bits.
    pub const NAMES: [(Codes, &'static str); 7] = [
        (Codes::MAX_LAYERS, "max_layers"),
        (Codes::MAX_PER_OP, "max_per_op"),
        (Codes::MAX_FLOPS, "max_flops"),
        (Codes::MAX_PARAMS, "max_params"),
        (Codes::MAX_LATENCY, "max_latency_ms"),
        (Codes::MISSING, "missing"),
        (Codes::INVALID, "invalid"),
    ];

    /// Whether all codes of another set are in this one.
    pub fn contains(self, others: Codes) -> bool {
        self.0 & others.0 == others.0
    }

    /// The decision with these reasons.
    pub fn decision(self) -> Decision {
        match self {
            Codes(0) => Decision::Accepted,
            Codes::INVALID => Decision::Invalid,
            Codes::MISSING => Decision::Unknown,
            _ => Decision::Rejected,
        }
    }
}

impl fmt::Display for Codes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A violated constraint.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Violation<'a> {
    code: Codes,
    constraint: &'static str,
    op: Option<&'a str>,
    value: Amount,
    limit: Amount,
}

/// Judges a candidate by what is limited and by its latency, or by the rows that its prediction lacks.
///
/// Every violated constraint is a reason, so that a search can tell how far off a candidate is. A violated constraint
/// rejects the candidate, whether rows are missing or not. Without one, missing rows make it unknown, even if no
/// constraint is about latency.
pub fn judge(
    constraints: &Constraints,
    quantities: &Quantities,
    latency: Result<Micros, Vec<OpKey>>,
) -> Verdict {
    let mut broken = Vec::new();
    violations(constraints, quantities, latency.as_ref().ok(), |violation| {
        let Violation { constraint, op, value, limit, .. } = violation;
        let op = op.map(str::to_owned);
        broken.push(Reason::Broken(Broken { constraint, op, value, limit }));
    });
    match latency {
        _ if !broken.is_empty() => Verdict { decision: Decision::Rejected, reasons: broken },
        Ok(_) => Verdict { decision: Decision::Accepted, reasons: broken },
        Err(missing) => {
            Verdict { decision: Decision::Unknown, reasons: vec![Reason::Missing { missing }] }
        }
    }
}

/// The codes of the reasons that [`judge`] gives. The latency is none if rows are missing.
pub fn codes(
    constraints: &Constraints,
    quantities: &Quantities,
    latency: Option<&Micros>,
) -> Codes {
    let mut codes = Codes::default();
    violations(constraints, quantities, latency, |violation| codes.0 |= violation.code.0);
    if codes == Codes::default() && latency.is_none() { Codes::MISSING } else { codes }
}

/// The latency that is compared with the limit, in milliseconds.
pub(crate) fn bounded_ms(constraints: &Constraints, latency: &Micros) -> f64 {
    match constraints.latency_bound {
        LatencyBound::Estimate => latency.latency / 1e3,
        LatencyBound::Upper => latency.high / 1e3,
    }
}

/// The violated constraints, in a fixed order. The last one is about the latency.
#[inline]
fn violations<'a>(
    constraints: &'a Constraints,
    quantities: &Quantities,
    latency: Option<&Micros>,
    mut found: impl FnMut(Violation<'a>),
) {
    let mut check = |code, constraint, op, value: u64, limit: Option<u64>| {
        if let Some(limit) = limit.filter(|&limit| value > limit) {
            let (value, limit) = (Amount::Count(value), Amount::Count(limit));
            found(Violation { code, constraint, op, value, limit });
        }
    };
    let Constraints { max_layers, max_per_op, max_flops, max_params, max_latency_ms, .. } =
        constraints;
    check(Codes::MAX_LAYERS, "max_layers", None, quantities.layers, *max_layers);
    for ((op, &limit), &count) in max_per_op.iter().zip(&quantities.per_op) {
        check(Codes::MAX_PER_OP, "max_per_op", Some(op.as_str()), count, Some(limit));
    }
    check(Codes::MAX_FLOPS, "max_flops", None, quantities.flops, *max_flops);
    check(Codes::MAX_PARAMS, "max_params", None, quantities.params, *max_params);
    if let (Some(latency), Some(limit)) = (latency, *max_latency_ms) {
        let value = bounded_ms(constraints, latency);
        // A value that cannot be compared violates the limit.
        let kept = value <= limit;
        if !kept {
            let (value, limit) = (Amount::Millis(value), Amount::Millis(limit));
            let (code, constraint) = (Codes::MAX_LATENCY, "max_latency_ms");
            found(Violation { code, constraint, op: None, value, limit });
        }
    }
}

#[cfg(test)]
mod tests;
