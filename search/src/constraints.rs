//! The constraints for candidates, and their YAML format.

use std::collections::BTreeMap;

use ops_catalog::{Catalog, Invalid, text};
use serde::{Deserialize, Serialize};

/// Which number of a prediction is compared with the latency budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LatencyBound {
    /// The estimate.
    #[default]
    Estimate,
    /// The upper end of its interval.
    Upper,
}

/// Limits for a candidate. An absent limit allows everything.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Constraints {
    /// Latency in milliseconds.
    pub max_latency_ms: Option<f64>,
    /// The number that is compared with `max_latency_ms`.
    pub latency_bound: LatencyBound,
    /// Multiply-accumulates.
    pub max_flops: Option<u64>,
    /// Parameters.
    pub max_params: Option<u64>,
    /// Layers or nodes, in the author's form.
    pub max_layers: Option<u64>,
    /// Layers or nodes of an op, by its name in the catalog.
    pub max_per_op: BTreeMap<String, u64>,
}

/// The file, before its op names are looked up.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    max_latency_ms: Option<f64>,
    latency_bound: Option<LatencyBound>,
    max_flops: Option<u64>,
    max_params: Option<u64>,
    max_layers: Option<u64>,
    max_per_op: Option<BTreeMap<String, u64>>,
}

impl Constraints {
    /// Reads constraints, for candidates that use the ops of a catalog.
    ///
    /// # Errors
    /// Syntax errors and unknown keys, with line and column; an invalid limit; an op that does not exist or occurs
    /// twice; no constraint at all.
    pub fn from_yaml(text: &str, catalog: &Catalog) -> Result<Constraints, Invalid> {
        let file: File = text::read(text)?;
        if let Some(limit) = file.max_latency_ms
            && !(limit > 0.0 && limit.is_finite())
        {
            let problem = format!("is {limit}; a latency is above zero and finite");
            return Err(Invalid::new("max_latency_ms", problem));
        }
        if file.latency_bound.is_some() && file.max_latency_ms.is_none() {
            return Err(Invalid::new("latency_bound", "says nothing without max_latency_ms"));
        }
        let constraints = Constraints {
            max_latency_ms: file.max_latency_ms,
            latency_bound: file.latency_bound.unwrap_or_default(),
            max_flops: file.max_flops,
            max_params: file.max_params,
            max_layers: file.max_layers,
            max_per_op: per_op(file.max_per_op.unwrap_or_default(), catalog)?,
        };
        if constraints == Constraints::default() {
            return Err(Invalid::new(
                "",
                "there is no constraint: give at least one of max_latency_ms, max_flops, max_params, \
                 max_layers and max_per_op",
            ));
        }
        Ok(constraints)
    }
}

/// Limits by the names of the catalog.
pub(crate) fn per_op(
    limits: BTreeMap<String, u64>,
    catalog: &Catalog,
) -> Result<BTreeMap<String, u64>, Invalid> {
    let mut by_name = BTreeMap::new();
    for (written, limit) in limits {
        let op = catalog.op(&written).map_err(|e| e.within("max_per_op"))?;
        if by_name.insert(op.name().to_owned(), limit).is_some() {
            let problem = format!("has {} twice, by name and by alias", op.name());
            return Err(Invalid::new("max_per_op", problem));
        }
    }
    Ok(by_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Constraints, String> {
        Constraints::from_yaml(text, Catalog::builtin()).map_err(|e| e.to_string())
    }

    #[test]
    fn constraints_are_read() {
        let text = "max_latency_ms: 25\nlatency_bound: upper\nmax_flops: 600e6\nmax_params: 5000000\n\
                    max_layers: 50\nmax_per_op: {MBConv6: 0, Conv3x3: 3}\n";
        let expected = Constraints {
            max_latency_ms: Some(25.0),
            latency_bound: LatencyBound::Upper,
            max_flops: Some(600_000_000),
            max_params: Some(5_000_000),
            max_layers: Some(50),
            max_per_op: [("Conv3x3".to_owned(), 3), ("MBConv6_3x3".to_owned(), 0)].into(),
        };
        assert_eq!(read(text), Ok(expected));
        let one = Constraints { max_layers: Some(3), ..Constraints::default() };
        assert_eq!(read("{\"max_layers\": 3}"), Ok(one));
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        for (text, problem) in [
            ("max_latency: 25\n", "there is no field `max_latency` here"),
            ("max_flops: 1\nmax_conv5x5: 5\n", "line 2, column 1"),
            ("max_flops: 1\nmax_flops: 2\n", "`max_flops` stands twice, first in line 1, column 1"),
            ("max_flops: -1\n", "-1 is negative"),
            ("max_flops: 1.5\n", "1.5 is not a whole number"),
            ("max_flops: many\n", "max_flops: is `many`; a whole number"),
            ("max_flops: 1e30\n", "1000000000000000000000000000000 is too large, the most is"),
            ("max_latency_ms: 0\n", "max_latency_ms: is 0; a latency is above zero"),
            ("max_latency_ms: .nan\n", "max_latency_ms: is NaN"),
            ("max_latency_ms: .inf\n", "max_latency_ms: is inf"),
            (
                "max_latency_ms: 1\nlatency_bound: lower\n",
                "`lower` is not known here; known are `estimate`, `upper`",
            ),
            ("max_flops: 1\nlatency_bound: upper\n", "latency_bound: says nothing without"),
            (
                "max_per_op: {Conv3x4: 1}\n",
                "max_per_op, op Conv3x4: there is no such op; the closest",
            ),
            ("max_per_op: {MBConv6: 1, MBConv6_3x3: 2}\n", "max_per_op: has MBConv6_3x3 twice"),
            ("{}\n", "there is no constraint: give at least one of"),
            ("max_per_op: {}\n", "there is no constraint"),
            ("- max_flops\n", "column 1: is a list; an object"),
            ("max_flops: [1\n", "it is not YAML: a `[` or `{` is not closed"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }
}
