//! Predictions of many networks at once.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Range;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use latlas_predict::{Micros, PackedOp, PackedTable, Predictor, TableIndex};
use latlas_shared::{Missing, MissingOp};
use ops_catalog::{Catalog, Merge, NetworkPlan, Op, OpKey};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyList, PyString, PyTuple};

use crate::errors::{self, Class};
use crate::network::Network;
use crate::prediction::ms;
use crate::rows::{self, Rows};
use crate::table::{self, Table};

/// The packed ops of a table under one rule for missing rows.
pub(crate) struct Bulk {
    /// Those of networks that were lists of op keys.
    pub(crate) keys: RwLock<PackedTable>,
    /// Those of networks that were row numbers; made at the first of them.
    pub(crate) rows: OnceLock<Rows>,
}

impl Bulk {
    pub(crate) fn new(index: &Arc<TableIndex>, missing: Missing) -> Bulk {
        let packed = PackedTable::new(Predictor::new(Arc::clone(index), missing));
        Bulk { keys: RwLock::new(packed), rows: OnceLock::new() }
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

/// The most texts that are known by their object. Lists whose keys are all new objects do not profit.
const MOST_OBJECTS: usize = 1 << 16;

/// The number of each op key.
#[derive(Default)]
struct Numbers<'py> {
    by_text: HashMap<String, u32>,
    /// By the address of the object: lists of a search share the objects of their keys, and comparing addresses is
    /// faster than hashing texts.
    by_object: HashMap<usize, u32, BuildHasherDefault<AddressHasher>>,
    /// Those objects. While they are kept, no other object has their address.
    kept: Vec<Bound<'py, PyAny>>,
}

impl<'py> Numbers<'py> {
    /// The number of a key, which is new if there is none yet. None for an object that is no text.
    fn of(&mut self, key: Bound<'py, PyAny>, texts: &mut Vec<String>) -> PyResult<Option<u32>> {
        let address = key.as_ptr() as usize;
        if let Some(&number) = self.by_object.get(&address) {
            return Ok(Some(number));
        }
        let Ok(text) = key.cast::<PyString>() else { return Ok(None) };
        let text = text.to_str()?;
        let number = match self.by_text.get(text) {
            Some(&number) => number,
            None => {
                let number = u32::try_from(texts.len())
                    .map_err(|_| Class::Error.with(key.py(), "too many distinct op keys"))?;
                self.by_text.insert(text.to_owned(), number);
                texts.push(text.to_owned());
                number
            }
        };
        if self.kept.len() < MOST_OBJECTS {
            self.by_object.insert(address, number);
            self.kept.push(key);
        }
        Ok(Some(number))
    }
}

/// Spreads addresses, whose lowest bits are all zero.
#[derive(Default)]
struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_usize(byte.into()));
    }

    fn write_usize(&mut self, address: usize) {
        // Fibonacci hashing, with the well-mixed half in the low bits too.
        let mixed = (self.0 ^ address as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }
}

impl Input {
    fn read<'py>(networks: &Bound<'py, PyAny>, catalog: &Catalog) -> PyResult<Input> {
        let py = networks.py();
        let mut input = Input::default();
        let mut numbers = Numbers::default();
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
            let mut add = |key: Bound<'py, PyAny>| {
                let number = numbers.of(key, &mut input.texts)?.ok_or_else(not_one)?;
                input.keys.push(number);
                PyResult::Ok(())
            };
            match network.cast::<PyList>() {
                Ok(list) => list.iter().try_for_each(&mut add)?,
                Err(_) => {
                    network.try_iter().map_err(|_| not_one())?.try_for_each(|key| add(key?))?
                }
            }
            if input.keys.len() == begin {
                return Err(Class::NetworkError.with(py, invalid(&"it has no op keys")));
            }
            input.items.push(Item::Keys(begin..input.keys.len()));
        }
        Ok(input)
    }
}

/// An op key of the input.
struct Packed {
    /// The packed op, or why there is no number for it.
    op: Result<PackedOp, MissingOp>,
    merges: bool,
}

/// Whether an op brings branches together. In the keys of a network it stands for a merge.
pub(crate) fn is_merge(op: &Op) -> bool {
    Merge::ALL.iter().any(|merge| merge.op_name() == op.name())
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
        let merges = is_merge(op);
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
}

/// The fewest networks for which another thread pays.
const FEWEST_OF_A_THREAD: usize = 500;

/// Latencies in milliseconds, lower ends and upper ends; NaN without a prediction.
pub(crate) type Columns = [Vec<f64>; 3];

/// Predicts so many networks on some threads: `one` predicts the network at a place, with memory that it may use
/// again. Also returns the missing rows of all networks.
pub(crate) fn columns(
    count: usize,
    threads: usize,
    one: impl Fn(usize, &mut Vec<PackedOp>) -> Result<Micros, Vec<MissingOp>> + Sync,
) -> (Columns, Vec<MissingOp>) {
    let mut columns = [(); 3].map(|()| vec![f64::NAN; count]);
    let threads = threads.min(count.div_ceil(FEWEST_OF_A_THREAD)).max(1);
    let each = count.div_ceil(threads).max(1);
    let [latencies, lows, highs] = &mut columns;
    let parts = latencies.chunks_mut(each).zip(lows.chunks_mut(each)).zip(highs.chunks_mut(each));
    let part = |first: usize, latencies: &mut [f64], lows: &mut [f64], highs: &mut [f64]| {
        let mut missing = Vec::new();
        let mut memory = Vec::new();
        let places = latencies.iter_mut().zip(lows).zip(highs).enumerate();
        for (place, ((latency, low), high)) in places {
            match one(first + place, &mut memory) {
                Ok(micros) => {
                    (*latency, *low, *high) = (ms(micros.latency), ms(micros.low), ms(micros.high));
                }
                Err(rows) => missing.extend(rows),
            }
        }
        missing
    };
    let missing = std::thread::scope(|scope| {
        let part = &part;
        let mut parts = parts.enumerate().map(|(at, ((latencies, lows), highs))| {
            move || part(at * each, &mut *latencies, &mut *lows, &mut *highs)
        });
        // The first part is for this thread.
        let own = parts.next();
        let others: Vec<_> = parts.map(|part| scope.spawn(part)).collect();
        let mut missing = own.map(|mut part| part()).unwrap_or_default();
        for thread in others {
            missing.extend(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        missing
    });
    (columns, missing)
}

/// The columns as numpy arrays, unless rows are missing that nobody allowed to be missing.
pub(crate) fn result<'py>(
    py: Python<'py>,
    columns: &Columns,
    mut missing: Vec<MissingOp>,
    gaps: bool,
) -> PyResult<Bound<'py, PyAny>> {
    if !missing.is_empty() && !gaps {
        let mut seen = HashSet::new();
        missing.retain(|op| seen.insert(op.key.clone()));
        return Err(errors::of_missing(py, missing));
    }
    let mut arrays = Vec::with_capacity(columns.len());
    for column in columns {
        let width = size_of::<f64>();
        arrays.push(PyByteArray::new_with(py, width * column.len(), |bytes| {
            for (place, number) in bytes.chunks_exact_mut(width).zip(column) {
                place.copy_from_slice(&number.to_ne_bytes());
            }
            Ok(())
        })?);
    }
    py.import("latlas._support")?.getattr("arrays")?.call1(PyTuple::new(py, arrays)?)
}

/// How missing rows and threads are handled.
pub(crate) struct Rules {
    pub(crate) missing: Missing,
    /// Whether a network with a missing row gets NaN.
    pub(crate) gaps: bool,
    pub(crate) threads: usize,
}

impl Rules {
    fn new(py: Python<'_>, missing: &str, threads: Option<usize>) -> PyResult<Rules> {
        let gaps = missing == "nan";
        let missing = if gaps { Missing::Error } else { table::missing(py, missing)? };
        if threads == Some(0) {
            return Err(Class::UsageError.with(py, "threads: it is at least 1"));
        }
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Rules { missing, gaps, threads: threads.unwrap_or(processors).min(processors) })
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
    let rules = Rules::new(py, missing, threads)?;
    if rows::is_array(networks)? {
        return rows::predict(table, networks, &rules);
    }
    let catalog = table.content().catalog();
    let input = Input::read(networks, catalog)?;
    let lock = &table.bulk(rules.missing).keys;
    // The lock is only taken without the interpreter, so that nobody waits for both.
    let predicted = py.detach(|| {
        let ops = {
            let mut packed = lock.write().unwrap_or_else(PoisonError::into_inner);
            pack(&input.texts, &mut packed, catalog)?
        };
        let packed = lock.read().unwrap_or_else(PoisonError::into_inner);
        let predictor = table.predictor(rules.missing);
        let work = Work { input: &input, packed: &packed, ops: &ops, predictor };
        Ok(columns(input.items.len(), rules.threads, |place, ids| {
            work.one(&input.items[place], ids)
        }))
    });
    let (columns, missing) =
        predicted.map_err(|problem: String| Class::UnknownKey.with(py, problem))?;
    result(py, &columns, missing, rules.gaps)
}
