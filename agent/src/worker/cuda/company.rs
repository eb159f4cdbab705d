//! Whether other programs have the GPU at work: it is shared in slices of time, so the kernels of others make
//! ours wait, and no counter of our own process shows it.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::system::gpu::{self, Gpu, GpuProcess};

/// The card's list is not asked for more often: the answer takes up to a millisecond, and the card itself
/// renews what it knows of processes a few times a second.
const ASKED_EVERY: Duration = Duration::from_millis(100);

/// Who else is on the GPU.
pub trait Company {
    /// Whether somebody else has work on the device now. False where nobody can tell.
    fn is_there(&mut self) -> bool;
}

/// The company of a real card.
#[derive(Debug)]
pub struct CardCompany {
    gpu: Option<Arc<dyn Gpu>>,
    known: bool,
    asked: Option<Instant>,
}

impl CardCompany {
    /// Of the GPU that CUDA calls `ordinal`.
    pub fn of(ordinal: u32) -> CardCompany {
        CardCompany::new(gpu::open(ordinal))
    }

    fn new(gpu: Option<Arc<dyn Gpu>>) -> CardCompany {
        CardCompany { gpu, known: false, asked: None }
    }
}

impl Company for CardCompany {
    fn is_there(&mut self) -> bool {
        if self.asked.is_none_or(|asked| asked.elapsed() >= ASKED_EVERY) {
            let listed = self.gpu.as_ref().and_then(|gpu| gpu.processes()).unwrap_or_default();
            let me = std::process::id();
            self.known = !strangers(&listed, me, parent_of).is_empty();
            self.asked = Some(Instant::now());
        }
        self.known
    }
}

/// The processes on a card that are at work and not ours: ours are this worker and what else its agent has
/// started. A process that holds memory and computes nothing does not slow down anybody.
///
/// Where this worker is not in the list itself, its numbers are those of another namespace, as in many
/// containers, and say nothing.
fn strangers(listed: &[GpuProcess], me: u32, parent_of: impl Fn(u32) -> Option<u32>) -> Vec<u32> {
    if !listed.iter().any(|process| process.pid == me) {
        return Vec::new();
    }
    let agent = parent_of(me);
    let ours = |pid: u32| {
        pid == me || agent.is_some_and(|agent| pid == agent || parent_of(pid) == Some(agent))
    };
    listed
        .iter()
        .filter(|process| !ours(process.pid) && process.busy_percent != Some(0))
        .map(|process| process.pid)
        .collect()
}

/// The parent of a process, from `/proc`.
fn parent_of(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::gpu::FakeGpu;

    fn process(pid: u32, busy_percent: Option<u32>) -> GpuProcess {
        GpuProcess { pid, busy_percent }
    }

    /// 7 is an agent, and 10 and 11 are its workers.
    fn family(pid: u32) -> Option<u32> {
        match pid {
            10 | 11 => Some(7),
            20 => Some(1),
            _ => None,
        }
    }

    #[test]
    fn strangers_at_work_are_told_from_the_agent_s_own_workers() {
        let me = process(10, Some(90));
        for (others, strangers_are) in [
            (&[][..], &[][..]),
            (&[process(11, Some(50))], &[]),
            (&[process(7, None)], &[]),
            (&[process(20, Some(30))], &[20]),
            // It holds memory and does nothing.
            (&[process(20, Some(0))], &[]),
            // A card that does not tell.
            (&[process(20, None), process(11, None), process(99, None)], &[20, 99]),
        ] {
            let listed = [std::slice::from_ref(&me), others].concat();
            assert_eq!(strangers(&listed, 10, family), strangers_are, "{others:?}");
        }
    }

    #[test]
    fn numbers_of_another_namespace_say_nothing() {
        assert!(strangers(&[process(4711, Some(90))], 10, family).is_empty());
        assert!(strangers(&[], 10, family).is_empty());
    }

    #[test]
    fn a_card_is_asked_for_its_processes() {
        let me = std::process::id();
        let with = |processes| {
            let gpu: Arc<dyn Gpu> = Arc::new(FakeGpu { processes, ..FakeGpu::default() });
            CardCompany::new(Some(gpu)).is_there()
        };
        assert!(!with(None));
        assert!(!with(Some(vec![process(me, Some(5))])));
        // The process with the number 1 was not started by this one.
        assert!(with(Some(vec![process(me, Some(5)), process(1, Some(5))])));
        assert!(!CardCompany::new(None).is_there());
    }

    #[test]
    fn the_parent_of_a_process_is_read() {
        assert_eq!(parent_of(std::process::id()), Some(std::os::unix::process::parent_id()));
        assert_eq!(parent_of(u32::MAX), None);
    }
}
