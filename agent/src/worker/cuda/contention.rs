//! Contention for the GPU. Programs share it in slices of time, so kernels of other programs delay ours, and no
//! counter of our own process shows that.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::system::gpu::{self, Gpu, GpuProcess};

/// The shortest time between two queries. A query takes up to a millisecond, and the card updates its list a few
/// times a second.
const ASKED_EVERY: Duration = Duration::from_millis(100);

/// A detector of other programs on the GPU.
pub trait Contention {
    /// Whether another program has work on the device now. False where that is unknown.
    fn is_present(&mut self) -> bool;
}

/// Contention for a real card.
#[derive(Debug)]
pub struct GpuContention {
    gpu: Option<Arc<dyn Gpu>>,
    known: bool,
    asked: Option<Instant>,
}

impl GpuContention {
    /// The detector for the GPU that CUDA calls `ordinal`.
    pub fn of(ordinal: u32) -> GpuContention {
        GpuContention::new(gpu::open(ordinal))
    }

    fn new(gpu: Option<Arc<dyn Gpu>>) -> GpuContention {
        GpuContention { gpu, known: false, asked: None }
    }
}

impl Contention for GpuContention {
    fn is_present(&mut self) -> bool {
        if self.asked.is_none_or(|asked| asked.elapsed() >= ASKED_EVERY) {
            let listed = self.gpu.as_ref().and_then(|gpu| gpu.processes()).unwrap_or_default();
            let me = std::process::id();
            self.known = !foreign(&listed, me, parent_of).is_empty();
            self.asked = Some(Instant::now());
        }
        self.known
    }
}

/// The processes of other programs that compute on the card. The processes of this program are this worker, its
/// agent, and the agent's other workers. An idle process that only holds memory slows nothing down.
///
/// If this worker is not in the list, the list has the process numbers of another namespace, as in many
/// containers. Then nothing is known.
fn foreign(listed: &[GpuProcess], me: u32, parent_of: impl Fn(u32) -> Option<u32>) -> Vec<u32> {
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
    fn busy_foreign_processes_are_told_from_the_agent_s_own_workers() {
        let me = process(10, Some(90));
        for (others, expected) in [
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
            assert_eq!(foreign(&listed, 10, family), expected, "{others:?}");
        }
    }

    #[test]
    fn numbers_of_another_namespace_say_nothing() {
        assert!(foreign(&[process(4711, Some(90))], 10, family).is_empty());
        assert!(foreign(&[], 10, family).is_empty());
    }

    #[test]
    fn a_card_is_asked_for_its_processes() {
        let me = std::process::id();
        let with = |processes| {
            let gpu: Arc<dyn Gpu> = Arc::new(FakeGpu { processes, ..FakeGpu::default() });
            GpuContention::new(Some(gpu)).is_present()
        };
        assert!(!with(None));
        assert!(!with(Some(vec![process(me, Some(5))])));
        // The process with the number 1 was not started by this one.
        assert!(with(Some(vec![process(me, Some(5)), process(1, Some(5))])));
        assert!(!GpuContention::new(None).is_present());
    }

    #[test]
    fn the_parent_of_a_process_is_read() {
        assert_eq!(parent_of(std::process::id()), Some(std::os::unix::process::parent_id()));
        assert_eq!(parent_of(u32::MAX), None);
    }
}
