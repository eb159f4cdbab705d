//! Unsent measurements. They are on disk from before they are sent until the coordinator has acknowledged them.

use std::collections::BTreeSet;
use std::fs;
use std::ops::Bound::{Excluded, Unbounded};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use latlas_program::files::{Readers, write_whole};
use latlas_shared::Measurement;
use ops_catalog::text;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Version of the files' format.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Entry {
    format: u32,
    measurement: Measurement,
}

/// A folder of unsent measurements, one file each.
#[derive(Debug)]
pub struct Spool {
    unsent: PathBuf,
    refused: PathBuf,
    /// The files of the folder, oldest first. Only one process works for an agent, so no other process adds files, and
    /// even a large folder is read only once.
    waiting: Mutex<BTreeSet<PathBuf>>,
}

impl Spool {
    /// Opens the spool below a state directory.
    ///
    /// # Errors
    /// When the folders cannot be created or read.
    pub fn open(state: &Path) -> Result<Spool> {
        let (unsent, refused) = (state.join("spool"), state.join("refused"));
        for dir in [&unsent, &refused] {
            fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        }
        let waiting = Mutex::new(files(&unsent)?);
        Ok(Spool { unsent, refused, waiting })
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeSet<PathBuf>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, id: Uuid) -> PathBuf {
        self.unsent.join(format!("{id}.json"))
    }

    /// The folder of unsent measurements.
    pub fn folder(&self) -> &Path {
        &self.unsent
    }

    /// Stores a measurement. When this returns, the measurement survives a power loss.
    ///
    /// # Errors
    /// When it cannot be written, for example on a full disk. No partial file stays behind.
    pub fn add(&self, measurement: &Measurement) -> Result<()> {
        let path = self.path(measurement.id);
        write(measurement, &path)
            .with_context(|| format!("storing a measurement in {}", self.unsent.display()))?;
        self.waiting().insert(path);
        Ok(())
    }

    /// The oldest unsent measurements, at most `most`. A file that is damaged or has the format of another version is
    /// moved aside, with the reason next to it.
    ///
    /// # Errors
    /// When a file cannot be read or moved.
    pub fn oldest(&self, most: usize) -> Result<Vec<Measurement>> {
        let mut measurements = Vec::new();
        let mut after: Option<PathBuf> = None;
        while measurements.len() < most {
            let next = match &after {
                None => self.waiting().first().cloned(),
                Some(last) => {
                    self.waiting().range::<PathBuf, _>((Excluded(last), Unbounded)).next().cloned()
                }
            };
            let Some(path) = next else { break };
            match read(&path)? {
                Ok(measurement) => measurements.push(measurement),
                Err(problem) => {
                    tracing::error!("{} is set aside: {problem}", path.display());
                    self.set_aside(&path, &problem)?;
                }
            }
            after = Some(path);
        }
        Ok(measurements)
    }

    /// The number of unsent measurements.
    pub fn len(&self) -> usize {
        self.waiting().len()
    }

    /// Deletes a measurement that the coordinator has acknowledged.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub fn acknowledge(&self, id: Uuid) -> Result<()> {
        let path = self.path(id);
        fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
        self.waiting().remove(&path);
        Ok(())
    }

    /// Moves aside a measurement that the coordinator refuses for good, with its answer.
    ///
    /// # Errors
    /// When it cannot be moved.
    pub fn refuse(&self, id: Uuid, answer: &str) -> Result<()> {
        self.set_aside(&self.path(id), answer)
    }

    /// Stores a measurement that was refused for good and was never in the spool, next to the other refused ones. If
    /// the disk is full, the refusal is only in the log.
    pub fn add_refused(&self, measurement: &Measurement, answer: &str) {
        let target = self.refused.join(format!("{}.json", measurement.id));
        match write(measurement, &target) {
            Ok(()) => note(&target, answer),
            Err(e) => tracing::error!(
                "the refused measurement {} of {} could not be kept either ({e:#}): {answer}",
                measurement.id,
                measurement.subject
            ),
        }
    }

    fn set_aside(&self, path: &Path, answer: &str) -> Result<()> {
        let target = self.refused.join(path.file_name().unwrap_or_default());
        fs::rename(path, &target)
            .with_context(|| format!("moving a refused measurement to {}", target.display()))?;
        self.waiting().remove(path);
        note(&target, answer);
        Ok(())
    }
}

/// The measurements in a folder. Version-7 UUIDs sort by creation time.
fn files(folder: &Path) -> Result<BTreeSet<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    let paths = entries.flatten().map(|entry| entry.path());
    Ok(paths.filter(|path| path.extension().is_some_and(|e| e == "json")).collect())
}

/// Writes an answer next to a refused measurement. The answer was logged too, so a full disk loses only the copy.
fn note(refused: &Path, answer: &str) {
    let note = refused.with_extension("answer.txt");
    if let Err(e) = fs::write(&note, answer) {
        tracing::warn!("writing {}: {e}", note.display());
    }
}

/// Writes a measurement atomically, also with respect to a power loss.
fn write(measurement: &Measurement, path: &Path) -> Result<()> {
    let entry = Entry { format: FORMAT, measurement: measurement.clone() };
    Ok(write_whole(path, &serde_json::to_vec(&entry)?, Readers::Umask)?)
}

/// Reads a file; the inner error is the reason why it is unusable.
fn read(path: &Path) -> Result<Result<Measurement, String>> {
    #[derive(Deserialize)]
    struct OnlyFormat {
        format: u32,
    }
    let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let json = match text::decode(&bytes) {
        Ok(json) => json,
        Err(problem) => return Ok(Err(format!("the file is damaged: {problem}"))),
    };
    match text::read_json(&json) {
        Ok(OnlyFormat { format: FORMAT }) => {}
        Ok(OnlyFormat { format }) => {
            return Ok(Err(format!(
                "the file has format {format}, and this agent reads {FORMAT}: move it back into the folder \
                 `spool` and start the version that wrote it"
            )));
        }
        Err(problem) => return Ok(Err(format!("the file is damaged: {problem}"))),
    }
    Ok(text::read_json(&json)
        .map(|entry: Entry| entry.measurement)
        .map_err(|problem| format!("the file is damaged: {problem}")))
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use latlas_shared::{Status, testing};

    /// A measurement with an id of its own.
    pub fn measurement() -> Measurement {
        Measurement {
            id: Uuid::now_v7(),
            task: Some(1),
            status: Status::Failed,
            reason: Some("because".into()),
            latency: None,
            ..testing::network_measurement("demo_conv", 1.0)
        }
    }

    #[test]
    fn what_was_added_is_there_until_it_is_acknowledged() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(dir.path()).unwrap();
        let (first, second) = (measurement(), measurement());
        spool.add(&first).unwrap();
        spool.add(&second).unwrap();
        // A new process finds the measurements again, oldest first.
        let spool = Spool::open(dir.path()).unwrap();
        assert_eq!(spool.oldest(10).unwrap(), [first.clone(), second.clone()]);
        assert_eq!(spool.oldest(1).unwrap(), std::slice::from_ref(&first));
        spool.acknowledge(first.id).unwrap();
        assert_eq!(spool.oldest(10).unwrap(), [second]);
    }

    #[test]
    fn a_half_written_file_is_not_a_measurement() {
        let dir = tempfile::tempdir().unwrap();
        Spool::open(dir.path()).unwrap();
        fs::write(dir.path().join("spool/x.partial"), "{\"format\": 1, \"mea").unwrap();
        let spool = Spool::open(dir.path()).unwrap();
        assert_eq!(spool.oldest(10).unwrap(), []);
    }

    #[test]
    fn a_damaged_file_is_set_aside_and_keeps_no_other_back() {
        let dir = tempfile::tempdir().unwrap();
        Spool::open(dir.path()).unwrap();
        for (name, text) in
            [("0", ""), ("1", "{\"format\": 1, \"measurement\": 7}"), ("2", "\u{0}")]
        {
            fs::write(dir.path().join(format!("spool/{name}.json")), text).unwrap();
        }
        let spool = Spool::open(dir.path()).unwrap();
        let measurement = measurement();
        spool.add(&measurement).unwrap();
        assert_eq!(spool.len(), 4);
        assert_eq!(spool.oldest(9).unwrap(), [measurement]);
        assert_eq!(spool.len(), 1);
        for name in ["0", "1", "2"] {
            assert!(dir.path().join(format!("refused/{name}.json")).exists());
            let note = dir.path().join(format!("refused/{name}.answer.txt"));
            assert!(fs::read_to_string(note).unwrap().starts_with("the file is damaged: "));
        }
    }

    #[test]
    fn what_is_refused_for_good_is_kept_with_the_answer() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(dir.path()).unwrap();
        let measurement = measurement();
        spool.add(&measurement).unwrap();
        spool.refuse(measurement.id, "unknown op").unwrap();
        assert_eq!(spool.oldest(10).unwrap(), []);
        let note = dir.path().join(format!("refused/{}.answer.txt", measurement.id));
        assert_eq!(fs::read_to_string(note).unwrap(), "unknown op");
    }

    #[test]
    fn a_file_of_another_format_keeps_no_other_back() {
        let dir = tempfile::tempdir().unwrap();
        Spool::open(dir.path()).unwrap();
        let entry = Entry { format: 9, measurement: measurement() };
        fs::write(dir.path().join("spool/a.json"), serde_json::to_vec(&entry).unwrap()).unwrap();
        let spool = Spool::open(dir.path()).unwrap();
        let measurement = measurement();
        spool.add(&measurement).unwrap();
        assert_eq!(spool.oldest(10).unwrap(), [measurement]);
        let kept: Entry =
            serde_json::from_slice(&fs::read(dir.path().join("refused/a.json")).unwrap()).unwrap();
        assert_eq!(kept.format, 9, "it is kept as it was");
        let note = fs::read_to_string(dir.path().join("refused/a.answer.txt")).unwrap();
        assert!(note.contains("has format 9, and this agent reads 1"), "{note}");
    }
}
