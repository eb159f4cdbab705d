//! Predictions of many networks at once.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};

use latlas_predict::{Micros, PackedOp, PackedTable, Predictor, TableIndex};
use latlas_shared::{Missing, MissingOp};
use ops_catalog::{Catalog, NetworkPlan, OpKey};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyString};

use crate::errors::{self, Class};
use crate::network::Network;
use crate::prediction::ms;
use crate::table::{self, Table};

/// The packed ops of a table, for networks that are lists of op keys; one for each rule for missing rows.
pub(crate) struct Bulk {
    strict: RwLock<PackedTable>,
    estimating: RwLock<PackedTable>,
}

impl Bulk {
    pub(crate) fn new(index: &Arc<TableIndex>) -> Bulk {
        let packed =
            |missing| RwLock::new(PackedTable::new(Predictor::new(Arc::clone(index), missing)));
        Bulk { strict: packed(Missing::Error), estimating: packed(Missing::Interpolate) }
    }

    fn of(&self, missing: Missing) -> &RwLock<PackedTable> {
        match missing {
            Missing::Error => &self.strict,
            Missing::Interpolate => &self.estimating,
        }
    }
}

/// A network of the input.
enum Item {
    /// A checked network.
    Plan(Arc<NetworkPlan>),
    /// A part of [`Input::keys`].
    Keys(Range<usize>),
}

/// The input, without objects of Python.
#[derive(Default)]
struct Input {
    items: Vec<Item>,
    /// All op keys, as numbers of `texts`.
    keys: Vec<u32>,
    /// The distinct op keys.
    texts: Vec<String>,
}

impl Input {
    fn read(networks: &Bound<'_, PyAny>, catalog: &Catalog) -> PyResult<Input> {
        let py = networks.py();
        let mut input = Input::default();
        let mut numbers: HashMap<String, u32> = HashMap::new();
        for (place, network) in networks.try_iter()?.enumerate() {
            let network = network?;
            let invalid = |problem: &dyn std::fmt::Display| format!("networks[{place}]: {problem}");
            if let Ok(network) = network.cast::<Network>() {
                let plan = network.get().plan(catalog);
                let plan = plan.map_err(|e| Class::NetworkError.with(py, invalid(&e)))?;
                input.items.push(Item::Plan(plan));
                continue;
            }
            let not_one = || {
                let needed = "a network is a latlas.Network or a list of op keys";
                PyTypeError::new_err(invalid(&needed))
            };
            if network.is_instance_of::<PyString>() {
                return Err(not_one());
            }
            let begin = input.keys.len();
            for key in network.try_iter().map_err(|_| not_one())? {
                let key = key?;
                let text = key.cast::<PyString>().map_err(|_| not_one())?.to_str()?;
                let number = match numbers.get(text) {
                    Some(&number) => number,
                    None => {
                        let number = u32::try_from(input.texts.len())
                            .map_err(|_| Class::Error.with(py, "too many distinct op keys"))?;
                        numbers.insert(text.to_owned(), number);
                        input.texts.push(text.to_owned());
                        number
                    }
                };
                input.keys.push(number);
            }
            if input.keys.len() == begin {
                return Err(Class::NetworkError.with(py, invalid(&"it has no op keys")));
            }
            input.items.push(Item::Keys(begin..input.keys.len()));
        }
        Ok(input)
    }
}

/// The ops of the catalog that bring branches together. In the keys of a network they stand for its merges.
const MERGES: [&str; 2] = ["Add", "Concat"];

/// An op key of the input.
struct Packed {
    /// The packed op, or why there is no number for it.
    op: Result<PackedOp, MissingOp>,
    merges: bool,
}

/// Packs the distinct op keys.
///
/// # Errors
/// A text that is no op key, or the key of an unknown op.
fn pack(
    texts: &[String],
    packed: &mut PackedTable,
    catalog: &Catalog,
) -> Result<Vec<Packed>, String> {
    let one = |text: &String| -> Result<Packed, ops_catalog::Invalid> {
        let key: OpKey = text.parse()?;
        let op = catalog.op(&key.op)?;
        let merges = MERGES.contains(&op.name());
        let op = packed.op(op, &key.shape).map_err(|why| MissingOp { key, why: why.to_string() });
        Ok(Packed { op, merges })
    };
    texts.iter().map(one).collect::<Result<_, _>>().map_err(|problem| problem.to_string())
}

/// What the threads share.
struct Work<'a> {
    input: &'a Input,
    packed: &'a PackedTable,
    ops: &'a [Packed],
    predictor: &'a Predictor,
}

impl Work<'_> {
    fn one(&self, item: &Item, ids: &mut Vec<PackedOp>) -> Result<Micros, Vec<MissingOp>> {
        match item {
            Item::Plan(plan) => {
                let prediction = self.predictor.predict_plan(plan)?;
                Ok(Micros {
                    low: prediction.low_micros,
                    latency: prediction.latency_micros,
                    high: prediction.high_micros,
                })
            }
            Item::Keys(range) => {
                let ops = || self.input.keys[range.clone()].iter().map(|&n| &self.ops[n as usize]);
                ids.clear();
                ids.extend(ops().filter_map(|key| key.op.as_ref().ok()));
                let merges = ops().filter(|key| key.merges).count();
                // None is for an op of another table, or for no op.
                let predicted =
                    self.packed.predict(ids, merges).filter(|_| ids.len() == range.len());
                let missing = || ops().filter_map(|key| key.op.as_ref().err()).cloned().collect();
                predicted.ok_or_else(missing)
            }
        }
    }

    /// Milliseconds of a part of the input, in three columns; NaN without a prediction. The missing rows of the
    /// part.
    fn part(&self, items: &[Item], columns: [&mut [f64]; 3]) -> Vec<MissingOp> {
        let [latencies, lows, highs] = columns;
        let mut missing = Vec::new();
        let mut ids = Vec::new();
        let places = latencies.iter_mut().zip(lows).zip(highs);
        for (item, ((latency, low), high)) in items.iter().zip(places) {
            match self.one(item, &mut ids) {
                Ok(micros) => {
                    (*latency, *low, *high) = (ms(micros.latency), ms(micros.low), ms(micros.high));
                }
                Err(rows) => {
                    (*latency, *low, *high) = (f64::NAN, f64::NAN, f64::NAN);
                    missing.extend(rows);
                }
            }
        }
        missing
    }

    /// The same for the whole input, on some threads.
    fn all(&self, threads: usize) -> ([Vec<f64>; 3], Vec<MissingOp>) {
        let count = self.input.items.len();
        let mut columns = [(); 3].map(|()| vec![0.0; count]);
        let each = count.div_ceil(threads).max(1);
        let [ms, low, high] = &mut columns;
        let parts = ms.chunks_mut(each).zip(low.chunks_mut(each)).zip(high.chunks_mut(each));
        let parts = self.input.items.chunks(each).zip(parts);
        let missing = std::thread::scope(|scope| {
            let started: Vec<_> = parts
                .map(|(items, ((ms, low), high))| {
                    scope.spawn(move || self.part(items, [ms, low, high]))
                })
                .collect();
            let joined = started.into_iter().map(|thread| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            });
            joined.flatten().collect()
        });
        (columns, missing)
    }
}

/// `Table.predict_many`.
pub(crate) fn predict<'py>(
    table: &Table,
    py: Python<'py>,
    networks: &Bound<'py, PyAny>,
    missing: &str,
    threads: Option<usize>,
) -> PyResult<Bound<'py, PyAny>> {
    let gaps = missing == "nan";
    let missing = if gaps { Missing::Error } else { table::missing(py, missing)? };
    if threads == Some(0) {
        return Err(Class::UsageError.with(py, "threads: it is at least 1"));
    }
    let catalog = table.index().catalog();
    let input = Input::read(networks, catalog)?;
    let lock = table.bulk.of(missing);
    // The lock is only taken without the interpreter, so that nobody waits for both.
    let predicted = py.detach(|| {
        let processors = || std::thread::available_parallelism().map_or(1, usize::from);
        let threads = threads.unwrap_or_else(processors).min(input.items.len()).max(1);
        let ops = {
            let mut packed = lock.write().unwrap_or_else(PoisonError::into_inner);
            pack(&input.texts, &mut packed, catalog)?
        };
        let packed = lock.read().unwrap_or_else(PoisonError::into_inner);
        let predictor = table.predictor(missing);
        Ok(Work { input: &input, packed: &packed, ops: &ops, predictor }.all(threads))
    });
    let (columns, mut missing) =
        predicted.map_err(|problem: String| Class::UnknownKey.with(py, problem))?;
    if !missing.is_empty() && !gaps {
        let mut seen = std::collections::HashSet::new();
        missing.retain(|op| seen.insert(op.key.clone()));
        return Err(errors::of_missing(py, missing));
    }
    let [ms, low, high] = columns.map(|column| {
        let bytes: Vec<u8> = column.iter().flat_map(|number| number.to_ne_bytes()).collect();
        PyByteArray::new(py, &bytes)
    });
    py.import("latlas._support")?.getattr("arrays")?.call1((ms, low, high))
}
