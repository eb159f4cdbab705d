//! Prepared work, and visits to it.

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use tch::Tensor;

use super::WorkerSettings;
use super::backend::{Backend, Call, Samples};
use super::busy::keep_busy;
use super::plan::{Budget, Plan};
use super::protocol::{Pass, VisitRequest, Visited, Work};
use super::recent::Recent;
use latlas_lowering::{Form, LoweredNetwork, LoweredOp, Placement, Random, WeightError};

/// The warm-up ends when two consecutive windows of this many calls agree.
const WARM_UP_WINDOW: u32 = 3;
/// The windows agree when their medians differ by less than this share.
const WARM_UP_AGREEMENT: f64 = 0.05;
/// The most windows. Work that never settles is measured as it is, and its interval shows that.
const WARM_UP_MOST_WINDOWS: usize = 8;

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

/// Work with weights and inputs, warmed up.
struct Ready {
    is_network: bool,
    /// The same op with as many sets of weights as the backend requested.
    copies: Vec<Lowered>,
    input: Tensor,
    copy_bytes: u64,
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
        self.is_network
    }
}

/// Prepared work, and the device that it runs on.
pub struct ReadyCache {
    recent: Recent<Ready>,
    element_bytes: u64,
    placement: Placement,
    backend: Box<dyn Backend>,
}

impl ReadyCache {
    pub fn new(settings: &WorkerSettings, backend: Box<dyn Backend>) -> ReadyCache {
        // On a GPU the copies of an op's weights fill the GPU's cache, and no other program needs the memory.
        let budget = match backend.memory_limit() {
            Some(limit) => Budget { limit, cache: limit / 2 },
            None => Budget::of(settings.memory_limit),
        };
        ReadyCache {
            recent: Recent::new(budget),
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
        reset_peak_memory("self");
        let (preparing_micros, mut ops_micros) = self.prepare(&request.work)?;
        let Some(ready) = self.recent.find(&request.work) else {
            bail!("the work is gone that was just prepared")
        };
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
        let peak_memory_bytes = self.backend.held_bytes()?.or_else(|| peak_memory("self"));
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
    fn prepare(&mut self, work: &Work) -> Result<(f64, f64)> {
        if self.recent.find(work).is_some() {
            return Ok((0.0, 0.0));
        }
        let start = Instant::now();
        let plan = Plan::new(work)?;
        let cost = plan.cost();
        let copy_bytes = cost.weight_bytes(self.element_bytes);
        let is_network = matches!(work, Work::Network { .. });
        // The reuse distance of a network follows from its own weights.
        let copies = if is_network { 1 } else { self.backend.copies(copy_bytes) };
        let bytes = self.recent.budget().check(cost, copies, self.element_bytes)?;
        drop(self.recent.make_room(bytes));
        let copies = (0..copies)
            .map(|_| Lowered::new(&plan, self.placement))
            .collect::<Result<Vec<_>, _>>()?;
        let input = copies[0].random_input()?;
        let mut ready = Ready { is_network, copies, input, copy_bytes };
        ready.check_output()?;
        let preparing_micros = start.elapsed().as_secs_f64() * 1e6;
        let ops_micros = until_settled(|pass| self.backend.sample(pass, &mut ready))?;
        self.recent.add(work.clone(), bytes, ready);
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
}

/// Warms work up: samples it until two windows of calls agree. Returns the microseconds in producers and ops.
///
/// # Errors
/// Those of sampling.
pub fn until_settled<E>(mut sample: impl FnMut(Pass) -> Result<Samples, E>) -> Result<f64, E> {
    let window = Pass::new(0, WARM_UP_WINDOW);
    let (mut before, mut ops_micros) = (f64::INFINITY, 0.0);
    for _ in 0..WARM_UP_MOST_WINDOWS {
        let samples = sample(window)?;
        ops_micros += samples.ops_micros;
        let now = latlas_predict::stats::median(&samples.micros);
        if (now / before - 1.0).abs() < WARM_UP_AGREEMENT {
            break;
        }
        before = now;
    }
    Ok(ops_micros)
}

/// Resets the kernel's record of a process's peak memory; `process` is its id, or `self`. If the kernel does not allow
/// that, the record covers the whole lifetime of the process, and peaks are upper bounds.
pub fn reset_peak_memory(process: &str) {
    let _ = fs::write(format!("/proc/{process}/clear_refs"), "5");
}

/// The kernel's record: `VmHWM`, the peak resident memory of a process.
pub fn peak_memory(process: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}
