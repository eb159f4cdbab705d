//! A simulated device: a host that fills a queue of limited depth, a device that works it off in order,
//! a cache that forgets what was used least recently, and a clock at each end.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use anyhow::{Result, bail};

use super::contention::Contention;
use super::queue::{Mark, Queue};
use crate::worker::backend::Call;

/// What a simulated op and device are like. Times are microseconds.
#[derive(Debug, Clone, Copy)]
pub struct Parameters {
    /// Issuing a call.
    pub dispatch: f64,
    /// Running a call whose weights are in the cache.
    pub kernel: f64,
    /// What it costs on top when they are not.
    pub fetch: f64,
    /// Launches that make up a call.
    pub launches: usize,
    /// Launches that the queue holds.
    pub depth: usize,
    /// Reading the host's clock.
    pub clock: f64,
    /// Putting a mark into the queue, on the host; the device needs a fifth of it.
    pub mark: f64,
    /// Waiting, beyond the work itself.
    pub wait: f64,
    /// Bytes of one copy of the weights.
    pub copy_bytes: u64,
    /// Bytes of the cache.
    pub l2_bytes: u64,
    pub is_network: bool,
}

pub const TYPICAL: Parameters = Parameters {
    dispatch: 6.0,
    kernel: 40.0,
    fetch: 10.0,
    launches: 1,
    depth: 1024,
    clock: 0.04,
    mark: 1.5,
    wait: 8.0,
    copy_bytes: 1 << 20,
    l2_bytes: 8 << 20,
    is_network: false,
};

/// The simulated world, shared between the queue and the call.
#[derive(Debug)]
pub struct World {
    pub parameters: Parameters,
    host: f64,
    device: f64,
    /// When each launch that is in the queue will have been run.
    queued: VecDeque<f64>,
    /// Copies in the cache, the most recently used first.
    cached: VecDeque<usize>,
    marks: [Option<f64>; 2],
    pub calls: usize,
    pub waits: usize,
    /// After so many calls every wait fails.
    pub breaks_after: Option<usize>,
    /// Bytes of the device that are free.
    pub free: u64,
    /// Somebody else computes there.
    pub contention: bool,
}

pub type Shared = Rc<RefCell<World>>;

pub fn world(parameters: Parameters) -> Shared {
    Rc::new(RefCell::new(World {
        parameters,
        host: 0.0,
        device: 0.0,
        queued: VecDeque::new(),
        cached: VecDeque::new(),
        marks: [None; 2],
        calls: 0,
        waits: 0,
        breaks_after: None,
        free: 16 << 30,
        contention: false,
    }))
}

impl World {
    /// Puts work into the queue; a full one makes the host wait for a place.
    fn launch(&mut self, micros: f64) {
        while self.queued.front().is_some_and(|&done| done <= self.host) {
            self.queued.pop_front();
        }
        if self.queued.len() >= self.parameters.depth
            && let Some(done) = self.queued.pop_front()
        {
            self.host = self.host.max(done);
        }
        self.device = self.device.max(self.host) + micros;
        self.queued.push_back(self.device);
    }

    fn is_cached(&mut self, copy: usize) -> bool {
        let place = self.cached.iter().position(|&cached| cached == copy);
        if let Some(place) = place {
            self.cached.remove(place);
        }
        self.cached.push_front(copy);
        let fitting = self.parameters.l2_bytes / self.parameters.copy_bytes.max(1);
        self.cached.truncate(usize::try_from(fitting).unwrap());
        place.is_some()
    }
}

pub struct FakeQueue(pub Shared);

impl Queue for FakeQueue {
    fn host_micros(&mut self) -> f64 {
        let mut world = self.0.borrow_mut();
        world.host += world.parameters.clock;
        world.host
    }

    fn mark(&mut self, mark: Mark) -> Result<()> {
        let mut world = self.0.borrow_mut();
        world.host += world.parameters.mark;
        let on_device = world.parameters.mark / 5.0;
        world.launch(on_device);
        let now = world.device;
        world.marks[mark as usize] = Some(now);
        Ok(())
    }

    fn synchronize(&mut self) -> Result<()> {
        let mut world = self.0.borrow_mut();
        world.waits += 1;
        if world.breaks_after.is_some_and(|most| world.calls >= most) {
            bail!("an illegal memory access was encountered");
        }
        world.host = world.host.max(world.device) + world.parameters.wait;
        Ok(())
    }

    fn between_marks(&mut self) -> Result<f64> {
        let world = self.0.borrow();
        let [Some(start), Some(end)] = world.marks else { bail!("a mark was never put") };
        if world.host < world.device {
            bail!("the end mark has not been passed");
        }
        Ok(end - start)
    }

    fn occupy(&mut self, size: u32, pieces: usize) -> Result<()> {
        let mut world = self.0.borrow_mut();
        for _ in 0..pieces {
            world.host += 5.0;
            world.launch(2.0 * 6.0f64.powi(size.cast_signed()));
        }
        Ok(())
    }

    fn free_bytes(&mut self) -> Result<u64> {
        Ok(self.0.borrow().free)
    }
}

pub struct FakeContention(pub Shared);

impl Contention for FakeContention {
    fn is_present(&mut self) -> bool {
        self.0.borrow().contention
    }
}

pub struct FakeCall(pub Shared);

impl Call for FakeCall {
    fn produce(&mut self) -> Result<()> {
        Ok(())
    }

    fn run(&mut self, copy: usize) -> Result<()> {
        let mut world = self.0.borrow_mut();
        world.calls += 1;
        let Parameters { dispatch, kernel, fetch, launches, .. } = world.parameters;
        let micros = if world.is_cached(copy) { kernel } else { kernel + fetch };
        for _ in 0..launches {
            world.host += dispatch / launches as f64;
            world.launch(micros / launches as f64);
        }
        Ok(())
    }

    fn copy_bytes(&self) -> u64 {
        self.0.borrow().parameters.copy_bytes
    }

    fn is_network(&self) -> bool {
        self.0.borrow().parameters.is_network
    }
}
