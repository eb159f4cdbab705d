//! Blocks judged by several threads, and written in the order of the input.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::anyhow;

use super::blocks::{Block, Blocks};
use super::lines::Judge;
use super::report::Tally;
use crate::files;
use crate::lines::MAX_LINE;

/// Blocks on their way, for each thread.
const QUEUED: usize = 2;

/// Why a run ended early.
#[derive(Debug)]
pub(super) enum Ended {
    /// The candidates cannot be read.
    Read(io::Error),
    /// The verdicts cannot be written.
    Written(io::Error),
    /// A thread panicked, and has said why.
    Panicked,
}

impl Ended {
    /// The error of the command.
    pub(super) fn explained(self, input: &Path) -> anyhow::Error {
        match self {
            Ended::Read(error) => files::unreadable(input, &error),
            Ended::Written(error) => error.into(),
            Ended::Panicked => {
                anyhow!("verdicts are missing, since a part of the program failed (above)")
            }
        }
    }
}

/// What travels from the reader to the judges.
type Work = (usize, io::Result<Block>);

/// What travels from the judges to the writer.
type Done = (usize, io::Result<(Vec<u8>, Tally)>);

/// Judges all candidates of a stream. Every thread but the writer's ends when its channel closes, so an error of the
/// writer ends the run even while the reader waits for input.
///
/// # Errors
/// When the stream cannot be read: everything before it is judged and written. When the output cannot be written.
pub(super) fn run(
    source: Box<dyn Read + Send>,
    judge: Arc<Judge>,
    threads: usize,
    out: &mut dyn Write,
) -> Result<Tally, Ended> {
    let (to_judges, work) = sync_channel::<Work>(QUEUED * threads);
    let (to_writer, done) = sync_channel::<Done>(QUEUED * threads);
    let work = Arc::new(Mutex::new(work));
    let judges: Vec<_> = (0..threads)
        .map(|_| {
            let (judge, work, to_writer) =
                (Arc::clone(&judge), Arc::clone(&work), to_writer.clone());
            thread::spawn(move || judge_blocks(&judge, &work, &to_writer))
        })
        .collect();
    drop(to_writer);
    thread::spawn(move || read_blocks(source, &to_judges));
    let tally = write_blocks(&done, out)?;
    // Their channel is closed, so they have ended.
    match judges.into_iter().all(|judge| judge.join().is_ok()) {
        true => Ok(tally),
        false => Err(Ended::Panicked),
    }
}

fn read_blocks(source: Box<dyn Read + Send>, to_judges: &SyncSender<Work>) {
    let mut blocks = Blocks::new(source, MAX_LINE);
    for number in 0.. {
        let block = match blocks.next() {
            Ok(Some(block)) => Ok(block),
            Ok(None) => return,
            Err(error) => Err(error),
        };
        let last = block.is_err();
        if to_judges.send((number, block)).is_err() || last {
            return;
        }
    }
}

fn judge_blocks(judge: &Judge, work: &Mutex<Receiver<Work>>, to_writer: &SyncSender<Done>) {
    let mut memory = judge.memory();
    loop {
        // The lock is held while waiting: the others wait for the same.
        let next = work.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((number, block)) = next else { return };
        let judged = block.map(|block| judge.block(&block, &mut memory));
        if to_writer.send((number, judged)).is_err() {
            return;
        }
    }
}

fn write_blocks(done: &Receiver<Done>, out: &mut dyn Write) -> Result<Tally, Ended> {
    let mut tally = Tally::default();
    let mut early = BTreeMap::new();
    let mut next = 0;
    loop {
        let ready = match done.try_recv() {
            Ok(ready) => Ok(ready),
            Err(_) => {
                // Nothing is ready: whoever wrote the candidates may wait for these verdicts.
                out.flush().map_err(Ended::Written)?;
                done.recv()
            }
        };
        let Ok((number, judged)) = ready else { return Ok(tally) };
        early.insert(number, judged);
        while let Some(judged) = early.remove(&next) {
            let (text, counted) = judged.map_err(Ended::Read)?;
            out.write_all(&text).map_err(Ended::Written)?;
            tally.add(counted);
            next += 1;
        }
    }
}
