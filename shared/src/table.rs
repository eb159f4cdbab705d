//! Latency tables: the document that is served and downloaded.

use std::collections::BTreeMap;

use jiff::Timestamp;
use ops_catalog::{Invalid, OpDef, OpDigest, OpKey, Shape, text};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::latency::LONGEST_MICROS;
use crate::{
    Accuracy, BetweenAgents, Calibration, CurvePoint, Fingerprint, HardwareId, Latency, RunConfig,
    Status, SustainedOverBurst,
};

/// Version of the table format. 2: the run config names its runtime, and digests their version. A reader takes
/// older tables, and refuses newer ones.
pub const TABLE_SCHEMA: u32 = 2;

/// How far the number of a row can be trusted: as far as the measurements behind it, unless other rows contradict it.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    strum::IntoStaticStr,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum RowStatus {
    /// Measured to the precision that was asked for.
    Ok,
    /// The time allowed was over before the interval was narrow enough.
    NotConverged,
    /// Measured, but the machine was disturbed for more of the samples than may be set aside.
    Degraded,
    /// Measured, and contradicted by rows of smaller or larger shapes. Predictions do not use it.
    Suspect,
    /// There is no number. The reason explains it.
    Failed,
}

impl RowStatus {
    /// The name in tables and columns.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

impl From<Status> for RowStatus {
    fn from(status: Status) -> RowStatus {
        match status {
            Status::Ok => RowStatus::Ok,
            Status::NotConverged => RowStatus::NotConverged,
            Status::Degraded => RowStatus::Degraded,
            Status::Failed => RowStatus::Failed,
        }
    }
}

/// One row: what an op costs on one class of hardware under one run config. The first columns are
/// the seed's.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// Name of the op.
    pub op_type: String,
    /// Height of the input map.
    pub input_h: u32,
    /// Width of it.
    pub input_w: u32,
    /// Channels of the input.
    pub channels_in: u32,
    /// Channels of the output.
    pub channels_out: u32,
    /// Stride.
    pub stride: u32,
    /// What the op costs inside a network: the quiet quantile at the run config's reuse distance, in
    /// microseconds. Null when nothing could be measured.
    pub latency_micros: Option<f64>,
    /// Energy of one call in millijoule; null where nothing measured it.
    pub energy_mj: Option<f64>,
    /// Batch.
    pub batch: u32,
    /// Digest of the definition that was run.
    pub op_digest: OpDigest,
    /// How far the number can be trusted.
    pub status: RowStatus,
    /// Why the status is not `ok`, and whether measurements are left out since they can't be read.
    pub reason: Option<String>,
    /// Half the width of the 95% confidence interval over the value.
    pub ci95_rel: Option<f64>,
    /// Median of the samples at the same reuse distance, in microseconds. The curve says how many calls a sample is
    /// the mean of.
    pub median_micros: Option<f64>,
    /// Number of samples behind the value.
    pub samples: u32,
    /// Number of agents whose measurements make it up.
    pub agents: u32,
    /// How they differ; null when there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub between_agents: Option<BetweenAgents>,
    /// When it was last measured.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub measured_at: Timestamp,
    /// The whole reuse-distance curve.
    pub curve: Vec<CurvePoint>,
}

impl Row {
    /// The row's shape.
    pub fn shape(&self) -> Shape {
        Shape {
            batch: self.batch,
            input_h: self.input_h,
            input_w: self.input_w,
            channels_in: self.channels_in,
            channels_out: self.channels_out,
            stride: self.stride,
        }
    }

    /// The row's key.
    pub fn key(&self) -> OpKey {
        OpKey { op: self.op_type.clone(), shape: self.shape() }
    }

    /// Checks what every reader of a row relies on: a key that could be asked for, a latency and a
    /// curve that agree unless the measurement failed, and times that are positive and finite.
    fn check(&self, reference_distance: u64) -> Result<(), Invalid> {
        let problem = |text: &str| Err(Invalid::new("", text));
        // The canonical spelling contains the rules for names and for shapes.
        self.key().to_string().parse::<OpKey>()?;
        let measured = self.latency_micros.is_some();
        if measured == self.curve.is_empty() {
            return problem("`latency_micros` and `curve` are both there, or neither is");
        }
        if measured == (self.status == RowStatus::Failed) {
            return problem("`latency_micros` is null if the status is `failed`, and only then");
        }
        let possible = |micros: f64| micros > 0.0 && micros <= LONGEST_MICROS;
        if !self.latency_micros.into_iter().chain(self.median_micros).all(possible) {
            return problem("a latency is above zero and finite");
        }
        if !measured {
            return Ok(());
        }
        let curve = Latency { curve: self.curve.clone() };
        let bounded = curve.curve.iter().all(|p| p.ci95_high_micros <= LONGEST_MICROS);
        if !curve.is_sound() || !bounded {
            return problem(
                "`curve` has ascending distances, and positive times inside their intervals",
            );
        }
        // Predictions read the curve and other tools read the column, so both must agree.
        let at_reference = self.read_curve(reference_distance as f64);
        let (Some(column), Some((_, value, _))) = (self.latency_micros, at_reference) else {
            return Ok(());
        };
        if (column / value - 1.0).abs() > 1e-6 {
            return problem("`latency_micros` is what `curve` says at the config's reuse distance");
        }
        Ok(())
    }
}

impl Row {
    /// Lower end, value and upper end of the latency at a reuse distance, in microseconds: linear
    /// between the points of the curve, level beyond its ends. None when the row has no number.
    pub fn read_curve(&self, reuse_distance_bytes: f64) -> Option<(f64, f64, f64)> {
        self.read(reuse_distance_bytes, CurvePoint::latency_micros)
    }

    /// What the device needs to run the op, read in the same way. On a GPU it can be less than the
    /// latency, where the host is the slower of the two.
    pub fn device_micros(&self, reuse_distance_bytes: f64) -> Option<f64> {
        let device = |point: &CurvePoint| (0.0, point.quiet_micros, 0.0);
        self.read(reuse_distance_bytes, device).map(|(_, micros, _)| micros)
    }

    /// What it costs the host to issue the op, at the curve's point nearest to a distance: the host does
    /// not care where weights are. None on a processor, where issuing and running are one.
    pub fn host_micros(&self, reuse_distance_bytes: f64) -> Option<f64> {
        let away =
            |point: &CurvePoint| (point.reuse_distance_bytes as f64 - reuse_distance_bytes).abs();
        let nearest = self.curve.iter().min_by(|a, b| away(a).total_cmp(&away(b)));
        nearest?.host_micros
    }

    /// What one more byte of reuse distance adds to the latency there, in microseconds; 0 beyond the ends of the
    /// curve.
    pub fn micros_per_byte(&self, reuse_distance_bytes: f64) -> f64 {
        let bytes = |point: &CurvePoint| point.reuse_distance_bytes as f64;
        let within = |pair: &&[CurvePoint]| {
            (bytes(&pair[0])..bytes(&pair[1])).contains(&reuse_distance_bytes)
        };
        self.curve.windows(2).find(within).map_or(0.0, |pair| {
            let (a, b) = (pair[0].latency_micros().1, pair[1].latency_micros().1);
            (b - a) / (bytes(&pair[1]) - bytes(&pair[0]))
        })
    }

    /// The difference between the median and the quiet quantile of the samples: what the other users of the machine
    /// cost, in microseconds. None when the row has no number.
    pub fn unquiet_micros(&self, reuse_distance_bytes: f64) -> Option<f64> {
        let unquiet =
            |point: &CurvePoint| (0.0, (point.median_micros - point.quiet_micros).max(0.0), 0.0);
        self.read(reuse_distance_bytes, unquiet).map(|(_, micros, _)| micros)
    }

    fn read(
        &self,
        reuse_distance_bytes: f64,
        at: impl Fn(&CurvePoint) -> (f64, f64, f64),
    ) -> Option<(f64, f64, f64)> {
        let first = self.curve.first()?;
        let last = self.curve.last()?;
        let x = reuse_distance_bytes;
        if x <= first.reuse_distance_bytes as f64 {
            return Some(at(first));
        }
        if x >= last.reuse_distance_bytes as f64 {
            return Some(at(last));
        }
        let pair = self.curve.windows(2).find(|pair| x <= pair[1].reuse_distance_bytes as f64)?;
        let (x0, x1) = (pair[0].reuse_distance_bytes as f64, pair[1].reuse_distance_bytes as f64);
        let share = (x - x0) / (x1 - x0);
        let (a, b) = (at(&pair[0]), at(&pair[1]));
        let between = |a: f64, b: f64| a + (b - a) * share;
        Some((between(a.0, b.0), between(a.1, b.1), between(a.2, b.2)))
    }
}

/// A table: everything that is known of one (hardware id, run config) at one moment.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// [`TABLE_SCHEMA`] of the writer.
    pub schema: u32,
    /// The class of device.
    pub hardware_id: HardwareId,
    /// How ops were run.
    pub run_config: RunConfig,
    /// Hash of the content: equal versions have equal rows, accuracy, calibration and sustained runs.
    pub version: String,
    /// When this version came to be.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub created_at: Timestamp,
    /// The boxes that measured it, by digest.
    pub fingerprints: BTreeMap<String, Fingerprint>,
    /// How well it predicts whole networks; null until whole networks were measured.
    pub accuracy: Option<Accuracy>,
    /// What whole networks cost beyond the sum of their ops; null until some were measured.
    #[serde(default)]
    pub calibration: Option<Calibration>,
    /// How much slower the device is after minutes without a pause; null until networks were run for so long.
    #[serde(default)]
    pub sustained: Option<SustainedOverBurst>,
    /// Definitions of its ops that are not in the built-in catalog, so that the file explains itself.
    pub ops: Vec<OpDef>,
    /// The rows, sorted by key.
    pub rows: Vec<Row>,
}

/// A text that is not a table version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a version is 4 to 64 letters and digits")]
pub struct NotAVersion;

/// Checks a table version that a user gives: it becomes a part of a URL's path.
///
/// # Errors
/// When it has other characters than those of a version, or too few or too many.
pub fn check_version(text: &str) -> Result<(), NotAVersion> {
    let plain = (4..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric());
    if plain { Ok(()) } else { Err(NotAVersion) }
}

/// Why a table could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// It is not JSON, or not of this shape.
    #[error(
        "this is not a latency table ({0}): get one with `latlas table get HARDWARE -o FILE`, in the \
         format json"
    )]
    Malformed(Invalid),
    /// Another version of the format.
    #[error(
        "the table has schema version {found}, and this program reads versions 1 to {TABLE_SCHEMA}: use the \
         Latlas that wrote it, or download the table again with this one"
    )]
    Schema {
        /// What the file says.
        found: u64,
    },
    /// Its content contradicts itself or the op definitions.
    #[error("the table is damaged ({0}): download it again")]
    Damaged(Invalid),
}

// The messages contain their causes. A `source` would repeat them.
impl From<Invalid> for TableError {
    fn from(problem: Invalid) -> Self {
        TableError::Damaged(problem)
    }
}

impl Table {
    /// The version of a content: a hash over what a reader of the table relies on, which is all but who
    /// measured it and when it was put together.
    pub fn content_version(
        hardware_id: &HardwareId,
        run_config: &RunConfig,
        ops: &[OpDef],
        rows: &[Row],
        accuracy: Option<&Accuracy>,
        calibration: Option<&Calibration>,
        sustained: Option<&SustainedOverBurst>,
    ) -> String {
        let content = (TABLE_SCHEMA, hardware_id, run_config, ops, rows, accuracy, calibration);
        // Without sustained runs the version is that of earlier programs.
        let text = match sustained {
            None => serde_json::to_string(&content),
            Some(sustained) => serde_json::to_string(&(content, sustained)),
        };
        let text = text.expect("plain data serializes to JSON");
        hex::encode(&Sha256::digest(text)[..16])
    }

    /// Reads a table from JSON and checks it.
    ///
    /// # Errors
    /// See [`TableError`]; a table of another version of the format is told from a damaged one.
    pub fn from_json(json: &str) -> Result<Table, TableError> {
        let read: Result<Table, Invalid> = text::read_json(json);
        let schema = match &read {
            Ok(table) => u64::from(table.schema),
            // A table of another version may have any content.
            Err(_) => schema_of(json)?,
        };
        if !(1..=u64::from(TABLE_SCHEMA)).contains(&schema) {
            return Err(TableError::Schema { found: schema });
        }
        let table = read.map_err(TableError::Malformed)?;
        table.check()?;
        Ok(table)
    }

    /// Checks every row by itself, and the sustained runs.
    ///
    /// # Errors
    /// The first part that is not sound.
    pub fn check(&self) -> Result<(), TableError> {
        if self.sustained.is_some_and(|sustained| !sustained.is_sound()) {
            let bounds = "`over_burst` is a factor, and `networks` is above 0";
            return Err(Invalid::new("sustained", bounds).into());
        }
        let reference = self.run_config.reuse_distance_bytes;
        for (index, row) in self.rows.iter().enumerate() {
            row.check(reference)
                .map_err(|e| e.within(format!("rows[{index}], {}", shown_key(row))))?;
        }
        Ok(())
    }
}

fn schema_of(json: &str) -> Result<u64, TableError> {
    #[derive(Deserialize)]
    #[serde(expecting = "an object with `schema`, `hardware_id` and `rows`")]
    struct OnlySchema {
        schema: u64,
    }
    let OnlySchema { schema } = text::read_json(json).map_err(TableError::Malformed)?;
    Ok(schema)
}

/// A row's key for a message; its name may be anything.
pub fn shown_key(row: &Row) -> String {
    row.key().to_string().chars().filter(|c| !c.is_control()).take(120).collect()
}

#[cfg(test)]
mod tests;
