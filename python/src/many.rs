//! Predictions of many networks at once.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};

use latlas_predict::{Micros, PackedOp, PackedTable, Predictor, TableIndex};
use latlas_shared::{Missing, MissingOp};
use ops_catalog::{Catalog, NetworkPlan, OpKey};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyList, PyString};

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
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = threads.map_or(processors, |threads| threads.min(processors));
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
