//! The index of a table for look-ups.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, OnceLock};

use latlas_shared::{Row, RowStatus, Table, TableError, shown_key};
use ops_catalog::{Catalog, Invalid, Op, OpDigest, OpKey, Shape};

use crate::interpolate::{Estimate, EstimateError, Interpolator};
use crate::predictor::calibration::Prior;
use crate::stats;

/// A table prepared for look-ups.
///
/// Rows are found by the digest of the op. So a row serves every name of one computation, and never another computation
/// with the same name.
#[derive(Debug)]
pub struct TableIndex {
    table: Table,
    catalog: Catalog,
    by_digest: HashMap<OpDigest, HashMap<Shape, usize>>,
    /// Rows whose definition differs from the catalog's op of that name: they explain why a key is missing.
    foreign: HashMap<OpKey, usize>,
    quickest_micros: f64,
    unquiet_share: f64,
    /// Created at the first estimate. Learned models stay as long as the index.
    interpolator: OnceLock<Interpolator>,
}

impl TableIndex {
    /// Indexes a table, with the built-in catalog and the table's own ops.
    ///
    /// # Errors
    /// When a row or an op definition of the table is invalid, or a row occurs twice.
    pub fn new(table: Table) -> Result<TableIndex, TableError> {
        table.check()?;
        let builtin = Catalog::builtin();
        let own = table.ops.iter().filter(|def| builtin.op(&def.name).is_err()).cloned();
        let catalog = builtin.with_ops(own)?;
        let mut by_digest: HashMap<OpDigest, HashMap<Shape, usize>> = HashMap::new();
        let mut foreign = HashMap::new();
        for (index, row) in table.rows.iter().enumerate() {
            if !catalog.op(&row.op_type).is_ok_and(|op| *op.digest() == row.op_digest) {
                foreign.insert(row.key(), index);
            }
            let rows = by_digest.entry(row.op_digest.clone()).or_default();
            match rows.entry(row.shape()) {
                Entry::Vacant(place) => {
                    place.insert(index);
                }
                Entry::Occupied(mut place) => {
                    let first = &table.rows[*place.get()];
                    if first.op_type == row.op_type {
                        let twice = Invalid::new(shown_key(row), "the row stands twice");
                        return Err(twice.into());
                    }
                    // Two names of one computation: the first one with a number serves both.
                    if first.latency_micros.is_none() {
                        place.insert(index);
                    }
                }
            }
        }
        // A table without a number predicts nothing.
        let numbers = table.rows.iter().filter_map(|row| row.latency_micros);
        let quickest_micros = numbers.reduce(f64::min).unwrap_or(0.0);
        let reference = table.run_config.reuse_distance_bytes as f64;
        let shares: Vec<f64> = table
            .rows
            .iter()
            .filter_map(|row| Some(row.unquiet_micros(reference)? / row.latency_micros?))
            .collect();
        let unquiet_share = if shares.is_empty() { 0.0 } else { stats::median(&shares) };
        Ok(TableIndex {
            table,
            catalog,
            by_digest,
            foreign,
            quickest_micros,
            unquiet_share,
            interpolator: OnceLock::new(),
        })
    }

    /// Latency of the fastest row, in microseconds: the scale of the costs between two ops on this box.
    pub fn quickest_micros(&self) -> f64 {
        self.quickest_micros
    }

    /// What is assumed about the coefficients of its calibration before a network was measured.
    pub fn prior(&self) -> Prior {
        Prior::new(&self.table.run_config.runtime, self.quickest_micros)
    }

    /// How far the medians of the rows are above their quiet quantiles, as a share of the latter: the median over all
    /// rows. It shows how busy the box was.
    pub fn unquiet_share(&self) -> f64 {
        self.unquiet_share
    }

    /// Returns the table itself.
    pub fn into_table(self) -> Table {
        self.table
    }

    /// The table.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The ops that networks may use with this table.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The row of an op at a shape, with or without a number.
    pub fn row(&self, op: &Op, shape: &Shape) -> Option<&Row> {
        let index = *self.by_digest.get(op.digest())?.get(shape)?;
        Some(&self.table.rows[index])
    }

    /// The row of this name and shape whose definition is not the catalog's.
    pub(crate) fn foreign_row(&self, key: &OpKey) -> Option<&Row> {
        self.foreign.get(key).map(|&index| &self.table.rows[index])
    }

    /// The rows that have a number, are not suspect, and are found by look-ups, with their ops, in the table's
    /// order.
    pub fn measured(&self) -> impl Iterator<Item = (&Arc<Op>, &Row)> {
        self.measured_places().map(|(op, place)| (op, &self.table.rows[place]))
    }

    /// The same, as indices into the table.
    pub(crate) fn measured_places(&self) -> impl Iterator<Item = (&Arc<Op>, usize)> {
        self.table.rows.iter().enumerate().filter_map(|(index, row)| {
            let op = self.catalog.op(&row.op_type).ok()?;
            let found = self.by_digest.get(op.digest())?.get(&row.shape())?;
            let usable = row.latency_micros.is_some() && row.status != RowStatus::Suspect;
            (*found == index && usable).then_some((op, index))
        })
    }

    /// The latency of an op at a shape, estimated from the measured rows around it.
    ///
    /// # Errors
    /// The reason why there is none.
    pub(crate) fn estimate(
        &self,
        op: &Op,
        shape: &Shape,
        reuse_distance_bytes: f64,
    ) -> Result<Estimate, EstimateError> {
        self.interpolator().estimate(&self.table.rows, op, shape, reuse_distance_bytes)
    }

    /// The host time of issuing an op at any shape, from its rows; none unless each row has a host time.
    pub(crate) fn host_micros(&self, op: &Op, reuse_distance_bytes: f64) -> Option<f64> {
        self.interpolator().host_micros(&self.table.rows, op, reuse_distance_bytes)
    }

    fn interpolator(&self) -> &Interpolator {
        self.interpolator.get_or_init(|| Interpolator::new(self.measured_places()))
    }

    /// How often a model was learned from rows for estimates, which is their expensive part: once for each op that an
    /// estimate was requested for, and once across all ops.
    pub fn times_learned(&self) -> usize {
        self.interpolator.get().map_or(0, Interpolator::times_learned)
    }
}

#[cfg(test)]
mod tests;
