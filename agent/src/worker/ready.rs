//! Prepared work, and visits to it.

use std::collections::VecDeque;
use std::fs;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use ops_catalog::{Catalog, Cost, Network, Op};
use tch::Tensor;

use super::WorkerSettings;
use super::backend::{Backend, Call};
use super::busy::keep_busy;
use super::protocol::{Pass, VisitRequest, Visited, Work};
use latlas_lowering::{Form, LoweredNetwork, LoweredOp, Placement, Random, WeightError};

/// The warm-up ends when two consecutive windows of this many calls agree.
const WARM_UP_WINDOW: u32 = 3;
/// The windows agree when their medians differ by less than this share.
const WARM_UP_AGREEMENT: f64 = 0.05;
/// The most windows. Work that never settles is measured as it is, and its interval shows that.
const WARM_UP_MOST_WINDOWS: usize = 8;

/// The most memory that the weights of cached work may need together, or a quarter of the memory limit where that is
/// less, since there are two workers.
///
/// It is enough for a thousand keys or a hundred mobile networks. Work that is evicted and prepared again at each
/// visit costs up to a second. Whole networks are also slower then (mobile networks by 12%, over 50 visits), because
/// their weights and activations are scattered over a fragmented heap.
const CACHE_BYTES: u64 = 4 << 30;

enum Lowered {
    Op(LoweredOp),
    Network(LoweredNetwork),
}

impl Lowered {
    fn new(work: &Plan, placement: Placement) -> Result<Lowered, WeightError> {
        let (form, weights) = (Form::Deployed, Random::default());
        Ok(match work {
            Plan::Op(plan) => Lowered::Op(LoweredOp::new(plan, placement, form, &weights)?),
            Plan::Network(plan) => {
                Lowered::Network(LoweredNetwork::new(plan, placement, form, &weights)?)
            }
        })
    }

    fn random_input(&self) -> Result<Tensor, tch::TchError> {
        match self {
            Lowered::Op(op) => op.random_input(),
            Lowered::Network(network) => network.random_input(),
        }
    }

    fn forward(&self, input: &Tensor) -> Result<Tensor, tch::TchError> {
        match self {
            Lowered::Op(op) => op.forward(input),
            Lowered::Network(network) => network.forward(input),
        }
    }
}

/// Work whose shapes are known.
enum Plan {
    Op(ops_catalog::OpPlan),
    Network(Box<ops_catalog::NetworkPlan>),
}

impl Plan {
    fn new(work: &Work) -> Result<Plan> {
        Ok(match work {
            Work::Op { def, shape } => Plan::Op(Op::new(def.clone())?.at(shape)?),
            Work::Network { spec, ops } => {
                let catalog = Catalog::builtin().with_ops(ops.iter().cloned())?;
                Plan::Network(Box::new(Network::new(spec, &catalog)?.plan(&catalog)?))
            }
        })
    }

    fn cost(&self) -> Cost {
        match self {
            Plan::Op(plan) => plan.cost,
            Plan::Network(plan) => plan.cost,
        }
    }
}

/// Work with weights and inputs, warmed up.
struct Ready {
    work: Work,
    /// The same op with as many sets of weights as the backend requested.
    copies: Vec<Lowered>,
    input: Tensor,
    copy_bytes: u64,
    bytes: u64,
}

impl Call for Ready {
    fn produce(&mut self) -> Result<()> {
        // Changing the sign in place is the cheapest way to have just written the tensor, with the same values up to
        // the sign.
        drop(self.input.f_neg_()?);
        Ok(())
    }

    fn run(&mut self, copy: usize) -> Result<()> {
        drop(self.copies[copy].forward(&self.input)?);
        Ok(())
    }

    fn copy_bytes(&self) -> u64 {
        self.copy_bytes
    }

    fn is_network(&self) -> bool {
        matches!(self.work, Work::Network { .. })
    }
}

/// A cache of prepared work within a budget of memory, the most recently used first. Preparation takes
/// milliseconds, and a run visits each key many times.
pub struct ReadyCache {
    entries: VecDeque<Ready>,
    memory_limit: u64,
    cache_bytes: u64,
    element_bytes: u64,
    placement: Placement,
    backend: Box<dyn Backend>,
}

impl ReadyCache {
    pub fn new(settings: &WorkerSettings, backend: Box<dyn Backend>) -> ReadyCache {
        // On a GPU the copies of an op's weights fill the GPU's cache, and no other program needs the memory.
        let (memory_limit, cache_bytes) = match backend.memory_limit() {
            Some(limit) => (limit, limit / 2),
            None => (settings.memory_limit, (settings.memory_limit / 4).min(CACHE_BYTES)),
        };
        ReadyCache {
            entries: VecDeque::new(),
            memory_limit,
            cache_bytes,
            element_bytes: settings.dtype.bytes(),
            placement: settings.placement(),
            backend,
        }
    }

    /// Samples one piece of work.
    ///
    /// # Errors
    /// When it does not fit into memory, libtorch cannot run it, or its output is not finite.
    pub fn visit(&mut self, request: &VisitRequest) -> Result<Visited> {
        reset_peak_memory();
        let (preparing_micros, mut ops_micros) = self.bring_to_front(&request.work)?;
        let ready = self.entries.front_mut().context("it was just brought to the front")?;
        // At the first call of a visit, the weights are wherever other work has left them. At later calls, their reuse
        // distance is always the same.
        let first = Pass::new(0, 1);
        ops_micros += self.backend.sample(first, ready)?.ops_micros;
        let passes = request
            .passes
            .iter()
            .map(|&pass| self.backend.sample(pass, ready))
            .collect::<Result<Vec<_>>>()?;
        let busy = request
            .busy_seconds
            .map(|seconds| keep_busy(&mut *self.backend, ready, seconds))
            .transpose()?;
        ops_micros += passes.iter().map(|samples| samples.ops_micros).sum::<f64>();
        let reading_micros = passes.iter().map(|samples| samples.reading_micros).sum();
        // libtorch keeps GPU memory that it has allocated, so the memory that it holds now is the peak.
        let peak_memory_bytes = self.backend.held_bytes()?.or_else(peak_memory);
        Ok(Visited {
            passes,
            preparing_micros,
            ops_micros,
            reading_micros,
            peak_memory_bytes,
            busy,
        })
    }

    /// Called after work has failed.
    ///
    /// # Errors
    /// When this process can no longer use the device.
    pub fn check_usable(&mut self) -> Result<()> {
        self.backend.finish().context("the device's context is lost")
    }

    /// Returns the microseconds of the preparation, and those of the warm-up in producers and ops.
    fn bring_to_front(&mut self, work: &Work) -> Result<(f64, f64)> {
        if let Some(place) = self.entries.iter().position(|ready| ready.work == *work) {
            if let Some(ready) = self.entries.remove(place) {
                self.entries.push_front(ready);
            }
            return Ok((0.0, 0.0));
        }
        let start = Instant::now();
        let plan = Plan::new(work)?;
        let cost = plan.cost();
        let copy_bytes = cost.weight_bytes(self.element_bytes);
        let copies = match work {
            Work::Op { .. } => self.backend.copies(copy_bytes),
            // The reuse distance of a network follows from its own weights.
            Work::Network { .. } => 1,
        };
        // The sum of all activations is an upper bound: most are freed before others are allocated.
        let bytes = copy_bytes
            .saturating_mul(copies as u64)
            .saturating_add(cost.activation_bytes(self.element_bytes));
        if bytes > self.memory_limit {
            bail!(
                "it needs up to {} MiB of memory, and the limit is {} MiB",
                bytes >> 20,
                self.memory_limit >> 20
            );
        }
        // Activations are freed after each call. Only the weights stay.
        let bytes = copy_bytes.saturating_mul(copies as u64);
        let mut used: u64 = bytes + self.entries.iter().map(|ready| ready.bytes).sum::<u64>();
        while used > self.cache_bytes {
            let Some(oldest) = self.entries.pop_back() else { break };
            used -= oldest.bytes;
        }
        let copies = (0..copies)
            .map(|_| Lowered::new(&plan, self.placement))
            .collect::<Result<Vec<_>, _>>()?;
        let input = copies[0].random_input()?;
        let mut ready = Ready { work: work.clone(), copies, input, copy_bytes, bytes };
        ready.check_output()?;
        let preparing_micros = start.elapsed().as_secs_f64() * 1e6;
        let ops_micros = ready.warm_up(&mut *self.backend)?;
        self.entries.push_front(ready);
        Ok((preparing_micros, ops_micros))
    }
}

impl Ready {
    fn check_output(&self) -> Result<()> {
        let output = self.copies[0].forward(&self.input)?;
        let sum = output.f_to_kind(tch::Kind::Double)?.f_abs()?.f_sum(tch::Kind::Double)?;
        if !f64::try_from(&sum)?.is_finite() {
            bail!("its output has values that are not finite");
        }
        Ok(())
    }

    /// Returns the microseconds in producers and ops.
    fn warm_up(&mut self, backend: &mut dyn Backend) -> Result<f64> {
        let window = Pass::new(0, WARM_UP_WINDOW);
        let (mut before, mut ops_micros) = (f64::INFINITY, 0.0);
        for _ in 0..WARM_UP_MOST_WINDOWS {
            let samples = backend.sample(window, self)?;
            ops_micros += samples.ops_micros;
            let now = latlas_predict::stats::median(&samples.micros);
            if (now / before - 1.0).abs() < WARM_UP_AGREEMENT {
                break;
            }
            before = now;
        }
        Ok(ops_micros)
    }
}

/// Resets the kernel's record of this process's peak memory. If the kernel does not allow that, the record covers the
/// whole lifetime of the process, and peaks are upper bounds.
fn reset_peak_memory() {
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// The kernel's record: `VmHWM`, the peak resident memory of this process.
fn peak_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}
