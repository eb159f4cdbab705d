//! Work that is ready to run, and a visit to it.

use std::collections::VecDeque;

use anyhow::{Context, Result, bail};
use ops_catalog::{Catalog, Cost, Network, Op};
use tch::Tensor;

use super::WorkerSettings;
use super::cpu::{Clock, Eviction};
use super::protocol::{VisitRequest, Work};
use crate::lower::{LoweredNetwork, LoweredOp};

/// The warm-up ends when two consecutive windows of this many calls agree.
const WARM_UP_WINDOW: usize = 3;
/// The windows agree when their medians differ by less than this share.
const WARM_UP_AGREEMENT: f64 = 0.05;
/// The most windows: something that never settles is measured as it is, and its interval tells.
const WARM_UP_MOST_WINDOWS: usize = 8;

enum Lowered {
    Op(LoweredOp),
    Network(LoweredNetwork),
}

impl Lowered {
    fn forward(&self, input: &Tensor) -> Result<Tensor, tch::TchError> {
        match self {
            Lowered::Op(op) => op.forward(input),
            Lowered::Network(network) => network.forward(input),
        }
    }
}

/// Work with weights and an input, warmed up.
struct Ready {
    work: Work,
    lowered: Lowered,
    input: Tensor,
    bytes: u64,
}

/// Ready work, the most recently used first, within a budget of memory: preparing again costs
/// milliseconds, and a run comes back to each key many times.
pub struct Pantry {
    shelf: VecDeque<Ready>,
    memory_limit: u64,
    eviction: Eviction,
    clock: Clock,
}

impl Pantry {
    pub fn new(settings: &WorkerSettings) -> Pantry {
        Pantry {
            shelf: VecDeque::new(),
            memory_limit: settings.memory_limit,
            eviction: Eviction::new(settings.largest_reuse_distance),
            clock: Clock::calibrate(),
        }
    }

    /// Samples one piece of work: for each pass, microseconds of single calls.
    ///
    /// # Errors
    /// When it does not fit into memory, libtorch cannot run it, or its output is not finite.
    pub fn visit(&mut self, request: &VisitRequest) -> Result<Vec<Vec<f64>>> {
        self.bring_to_front(&request.work)?;
        let Pantry { shelf, eviction, clock, .. } = self;
        let ready = shelf.front_mut().context("it was just brought to the front")?;
        let mut all = Vec::with_capacity(request.passes.len());
        for pass in &request.passes {
            let mut samples = Vec::with_capacity(pass.samples as usize);
            // The first call of a pass finds the caches as the pass before left them.
            for index in 0..=pass.samples {
                let micros = ready.sample(pass.reuse_distance_bytes, eviction, *clock)?;
                if index > 0 {
                    samples.push(micros);
                }
            }
            all.push(samples);
        }
        Ok(all)
    }

    fn bring_to_front(&mut self, work: &Work) -> Result<()> {
        if let Some(place) = self.shelf.iter().position(|ready| ready.work == *work) {
            if let Some(ready) = self.shelf.remove(place) {
                self.shelf.push_front(ready);
            }
            return Ok(());
        }
        let (cost, lower) = plan(work)?;
        // Every activation at once is more than is ever alive together.
        let bytes = cost.weight_bytes(4).saturating_add(cost.activation_bytes(4));
        if bytes > self.memory_limit {
            bail!(
                "it needs up to {} MiB of memory, and the limit is {} MiB",
                bytes >> 20,
                self.memory_limit >> 20
            );
        }
        let budget = self.memory_limit / 2;
        let mut used: u64 = bytes + self.shelf.iter().map(|ready| ready.bytes).sum::<u64>();
        while used > budget {
            let Some(oldest) = self.shelf.pop_back() else { break };
            used -= oldest.bytes;
        }
        let ready = Ready::new(work.clone(), lower, bytes, self.clock)?;
        self.shelf.push_front(ready);
        Ok(())
    }
}

type Lower = Box<dyn FnOnce() -> Result<(Lowered, Tensor)>>;

/// What the work costs, and how to lower it once it is known to fit.
fn plan(work: &Work) -> Result<(Cost, Lower)> {
    match work {
        Work::Op { def, shape } => {
            let plan = Op::new(def.clone())?.at(shape)?;
            let cost = plan.cost;
            let lower: Lower = Box::new(move || {
                let op = LoweredOp::new(&plan)?;
                let input = op.random_input()?;
                Ok((Lowered::Op(op), input))
            });
            Ok((cost, lower))
        }
        Work::Network { spec, ops } => {
            let catalog = Catalog::builtin().with_ops(ops.iter().cloned())?;
            let plan = Network::new(spec, &catalog)?.plan(&catalog)?;
            let cost = plan.cost;
            let lower: Lower = Box::new(move || {
                let network = LoweredNetwork::new(&plan)?;
                let input = network.random_input()?;
                Ok((Lowered::Network(network), input))
            });
            Ok((cost, lower))
        }
    }
}

impl Ready {
    fn new(work: Work, lower: Lower, bytes: u64, clock: Clock) -> Result<Ready> {
        let (lowered, input) = lower()?;
        let mut ready = Ready { work, lowered, input, bytes };
        let output = ready.lowered.forward(&ready.input)?;
        let sum = output.f_to_kind(tch::Kind::Double)?.f_abs()?.f_sum(tch::Kind::Double)?;
        if !f64::try_from(&sum)?.is_finite() {
            bail!("its output has values that are not finite");
        }
        ready.warm_up(clock)?;
        Ok(ready)
    }

    fn warm_up(&mut self, clock: Clock) -> Result<()> {
        let mut before = f64::INFINITY;
        for _ in 0..WARM_UP_MOST_WINDOWS {
            let window = (0..WARM_UP_WINDOW)
                .map(|_| self.call(clock))
                .collect::<Result<Vec<f64>>>()?;
            let now = latlas_shared::stats::median(&window);
            if (now / before - 1.0).abs() < WARM_UP_AGREEMENT {
                break;
            }
            before = now;
        }
        Ok(())
    }

    fn call(&mut self, clock: Clock) -> Result<f64> {
        // The producer: in a network, an op reads what the op before has just written. Changing the
        // sign in place is the cheapest way to have just written a tensor of the same values.
        drop(self.input.f_neg_()?);
        let (micros, output) = clock.time(|| self.lowered.forward(&self.input));
        drop(output?);
        Ok(micros)
    }

    fn sample(&mut self, distance: u64, eviction: &Eviction, clock: Clock) -> Result<f64> {
        eviction.read(distance);
        self.call(clock)
    }
}
