//! The GPU's own library, NVML, behind a trait: facts, state and energy of the card. No other module of this program
//! knows NVML.
//!
//! NVML is loaded on first use. If it is missing or does not answer, a GPU's facts are unknown.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nvml_wrapper::Nvml;
use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureSensor};
use nvml_wrapper::error::NvmlError;

/// The past time for which the card is asked about processes.
const BUSY_SECONDS: Duration = Duration::from_secs(2);

/// Facts that are constant while the box runs. An unreadable fact is absent.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GpuFacts {
    /// The product's name, such as `Tesla T4`.
    pub name: Option<String>,
    /// Memory in bytes that programs may use.
    pub memory_bytes: Option<u64>,
    /// Version of the driver.
    pub driver: Option<String>,
    /// The power limit in force, in watts, if it differs from the card's default.
    pub power_limit_watts: Option<u32>,
    /// Other facts that change latency.
    pub more: BTreeMap<String, String>,
}

/// State that changes from moment to moment.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GpuState {
    /// Clock of the processors, in MHz.
    pub mhz: Option<u32>,
    /// Clock of the memory, in MHz.
    pub memory_mhz: Option<u32>,
    /// Degrees Celsius.
    pub temperature_c: Option<f64>,
    /// Throttle reasons; empty if the card reports none.
    pub throttle: Option<Vec<String>>,
}

/// A process that has a context on the card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuProcess {
    /// Its process id, as the driver sees it.
    pub pid: u32,
    /// The largest share of time, in percent, during which its kernels ran in the last seconds. None if the card does
    /// not report it.
    pub busy_percent: Option<u32>,
}

/// A GPU that can be queried. Every answer may be absent.
pub trait Gpu: Send + Sync + Debug {
    /// Its constant facts.
    fn facts(&self) -> GpuFacts;

    /// Its current state.
    fn state(&self) -> GpuState;

    /// Energy since its driver was loaded, in millijoules. Cards before Volta have no such counter.
    fn energy_millijoules(&self) -> Option<u64>;

    /// Power in milliwatts; on many cards the mean of about a second.
    fn power_milliwatts(&self) -> Option<u32>;

    /// The processes that can compute on it.
    fn processes(&self) -> Option<Vec<GpuProcess>>;
}

/// The GPU that CUDA calls `ordinal`; None if NVML is missing or cannot identify it.
pub fn open(ordinal: u32) -> Option<Arc<dyn Gpu>> {
    // Only development packages have the plain name; containers have the numbered one.
    let nvml = Nvml::builder()
        .lib_path("libnvidia-ml.so.1".as_ref())
        .init()
        .or_else(|_| Nvml::init())
        .inspect_err(|e| tracing::info!("NVML is not available ({e}): the GPU's state is unknown"))
        .ok()?;
    let cards: Vec<Card> = (0..nvml.device_count().ok()?)
        .map(|index| {
            let device = nvml.device_by_index(index)?;
            Ok(Card { uuid: device.uuid()?, name: device.name()? })
        })
        .collect::<Result<_, NvmlError>>()
        .ok()?;
    let visible = env::var("CUDA_VISIBLE_DEVICES").ok();
    let by_bus = env::var("CUDA_DEVICE_ORDER").is_ok_and(|order| order == "PCI_BUS_ID");
    let index = nvml_index(ordinal, visible.as_deref(), by_bus, &cards)?;
    Some(Arc::new(NvmlGpu { nvml, index }))
}

/// A card in NVML's list.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Card {
    uuid: String,
    name: String,
}

/// NVML's index of the card that CUDA calls `ordinal`. NVML counts all cards, along the PCI bus. CUDA counts the
/// visible ones, by default the fastest first.
///
/// None if the answer would be a guess: the cards differ, and the two orders may differ.
fn nvml_index(ordinal: u32, visible: Option<&str>, by_bus: bool, cards: &[Card]) -> Option<u32> {
    let ordinal = ordinal as usize;
    let alike = cards.iter().all(|card| card.name == cards[0].name);
    let place = match visible {
        Some(list) => {
            let entry = list.split(',').nth(ordinal)?.trim();
            if let Ok(index) = entry.parse::<usize>() {
                (alike || by_bus).then_some(index)?
            } else if entry.starts_with("GPU-") {
                // CUDA accepts a unique prefix.
                let mut fits =
                    (0..cards.len()).filter(|&index| cards[index].uuid.starts_with(entry));
                let only = fits.next()?;
                fits.next().is_none().then_some(only)?
            } else {
                // Instances of a partitioned card share its clocks and its counter.
                return None;
            }
        }
        None => (alike || by_bus).then_some(ordinal)?,
    };
    (place < cards.len()).then(|| u32::try_from(place).ok())?
}

/// A card, through NVML.
#[derive(Debug)]
struct NvmlGpu {
    nvml: Nvml,
    index: u32,
}

impl NvmlGpu {
    /// Makes one query.
    fn ask<T>(
        &self,
        question: impl FnOnce(&nvml_wrapper::Device<'_>) -> Result<T, NvmlError>,
    ) -> Option<T> {
        question(&self.nvml.device_by_index(self.index).ok()?).ok()
    }
}

impl Gpu for NvmlGpu {
    fn facts(&self) -> GpuFacts {
        let on_off = |on: bool| if on { "on" } else { "off" }.to_owned();
        let limit = self.ask(|gpu| gpu.enforced_power_limit());
        let default = self.ask(|gpu| gpu.power_management_limit_default());
        let mhz =
            |clock: Clock| self.ask(|gpu| gpu.max_clock_info(clock)).map(|mhz| mhz.to_string());
        let set =
            |clock: Clock| self.ask(|gpu| gpu.applications_clock(clock)).map(|mhz| mhz.to_string());
        // On a partitioned card CUDA sees a part, and NVML describes the whole.
        let partitioned = self.ask(|gpu| gpu.mig_mode()).is_some_and(|mig| mig.current == 1);
        let more = [
            ("gpu_max_mhz", mhz(Clock::Graphics)),
            ("gpu_memory_max_mhz", mhz(Clock::Memory)),
            ("gpu_set_mhz", set(Clock::Graphics)),
            ("gpu_memory_set_mhz", set(Clock::Memory)),
            ("gpu_power_limit_watts", limit.map(|mw| (mw / 1000).to_string())),
            (
                "gpu_ecc",
                self.ask(|gpu| gpu.is_ecc_enabled()).map(|ecc| on_off(ecc.currently_enabled)),
            ),
            ("gpu_persistence", self.ask(|gpu| gpu.is_in_persistent_mode()).map(on_off)),
            ("gpu_mps", Some(on_off(mps_pipes(env::var_os("CUDA_MPS_PIPE_DIRECTORY")).exists()))),
            ("gpu_mig", self.ask(|gpu| gpu.mig_mode()).map(|mig| on_off(mig.current == 1))),
            (
                "cuda_driver",
                self.nvml
                    .sys_cuda_driver_version()
                    .ok()
                    .map(|v| format!("{}.{}", v / 1000, v % 1000 / 10)),
            ),
        ];
        GpuFacts {
            name: self.ask(|gpu| gpu.name()).filter(|_| !partitioned),
            memory_bytes: self
                .ask(|gpu| gpu.memory_info())
                .map(|memory| memory.total)
                .filter(|_| !partitioned),
            driver: self.nvml.sys_driver_version().ok(),
            power_limit_watts: limit
                .zip(default)
                .and_then(|(now, usual)| (now != usual).then_some(now / 1000)),
            more: more
                .into_iter()
                .filter_map(|(name, value)| Some((name.to_owned(), value?)))
                .collect(),
        }
    }

    fn state(&self) -> GpuState {
        let mhz = |clock: Clock| self.ask(|gpu| gpu.clock_info(clock));
        GpuState {
            mhz: mhz(Clock::Graphics),
            memory_mhz: mhz(Clock::Memory),
            temperature_c: self.ask(|gpu| gpu.temperature(TemperatureSensor::Gpu)).map(f64::from),
            throttle: self.ask(|gpu| gpu.current_throttle_reasons()).map(throttle_names),
        }
    }

    fn energy_millijoules(&self) -> Option<u64> {
        self.ask(|gpu| gpu.total_energy_consumption())
    }

    fn power_milliwatts(&self) -> Option<u32> {
        self.ask(|gpu| gpu.power_usage())
    }

    fn processes(&self) -> Option<Vec<GpuProcess>> {
        let listed = self.ask(|gpu| gpu.running_compute_processes())?;
        // The card keeps the samples of a few seconds.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let since = now.saturating_sub(BUSY_SECONDS).as_micros();
        let since = u64::try_from(since).unwrap_or(0);
        let samples = match self
            .nvml
            .device_by_index(self.index)
            .and_then(|gpu| gpu.process_utilization_stats(since))
        {
            Ok(samples) => Some(samples),
            // The card's answer if nothing has run.
            Err(NvmlError::NotFound) => Some(Vec::new()),
            Err(_) => None,
        };
        let samples = samples.map(|samples| {
            samples.iter().map(|sample| (sample.pid, sample.sm_util)).collect::<Vec<_>>()
        });
        let pids: Vec<u32> = listed.iter().map(|process| process.pid).collect();
        Some(with_busy(&pids, samples.as_deref()))
    }
}

/// The pipe of NVIDIA's multi-process service, through which other processes' kernels run beside ours. It exists while
/// the service runs. `directory` is the user's choice.
fn mps_pipes(directory: Option<OsString>) -> PathBuf {
    directory.map_or_else(|| PathBuf::from("/tmp/nvidia-mps"), PathBuf::from).join("control")
}

/// Processes with their largest sample each. A process without a sample was idle, provided that there are samples.
fn with_busy(pids: &[u32], samples: Option<&[(u32, u32)]>) -> Vec<GpuProcess> {
    let busy_percent = |pid: u32| {
        let own = samples?.iter().filter(|&&(of, _)| of == pid);
        Some(own.map(|&(_, percent)| percent).max().unwrap_or(0))
    };
    pids.iter().map(|&pid| GpuProcess { pid, busy_percent: busy_percent(pid) }).collect()
}

/// Names of the reasons, in lower case. NVML's reason `idle` is left out.
fn throttle_names(reasons: ThrottleReasons) -> Vec<String> {
    let others = reasons - ThrottleReasons::GPU_IDLE - ThrottleReasons::NONE;
    others.iter_names().map(|(name, _)| name.to_lowercase()).collect()
}

/// A fake GPU.
#[cfg(test)]
#[derive(Debug, Default)]
pub struct FakeGpu {
    /// The facts that it reports.
    pub facts: GpuFacts,
    /// The state that it reports.
    pub state: GpuState,
    /// The energy that it reports.
    pub energy: std::sync::atomic::AtomicU64,
    /// The power that it reports.
    pub power: Option<u32>,
    /// The processes that it reports.
    pub processes: Option<Vec<GpuProcess>>,
}

#[cfg(test)]
impl Gpu for FakeGpu {
    fn facts(&self) -> GpuFacts {
        self.facts.clone()
    }
    fn state(&self) -> GpuState {
        self.state.clone()
    }
    fn energy_millijoules(&self) -> Option<u64> {
        Some(self.energy.load(std::sync::atomic::Ordering::Relaxed)).filter(|&mj| mj > 0)
    }
    fn power_milliwatts(&self) -> Option<u32> {
        self.power
    }
    fn processes(&self) -> Option<Vec<GpuProcess>> {
        self.processes.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cards(names: &[&str]) -> Vec<Card> {
        let card = |(index, name): (usize, &&str)| Card {
            uuid: format!("GPU-{index}0ab"),
            name: (*name).to_owned(),
        };
        names.iter().enumerate().map(card).collect()
    }

    #[test]
    fn a_card_is_found_only_when_both_libraries_mean_the_same() {
        let one = cards(&["Tesla T4"]);
        let alike = cards(&["Tesla T4", "Tesla T4"]);
        let mixed = cards(&["Quadro P400", "Tesla T4"]);
        for (cards, ordinal, visible, by_bus, index) in [
            (&one, 0, None, false, Some(0)),
            (&one, 1, None, false, None),
            (&alike, 1, None, false, Some(1)),
            (&alike, 0, Some("1"), false, Some(1)),
            (&alike, 0, Some("7"), false, None),
            (&mixed, 0, None, false, None),
            (&mixed, 1, None, true, Some(1)),
            (&mixed, 0, Some("GPU-1"), false, Some(1)),
            (&mixed, 0, Some("GPU-"), false, None),
            (&mixed, 0, Some("MIG-5"), true, None),
            (&mixed, 0, Some(""), true, None),
        ] {
            assert_eq!(
                nvml_index(ordinal, visible, by_bus, cards),
                index,
                "{ordinal} {visible:?} {cards:?}"
            );
        }
        assert_eq!(nvml_index(0, None, false, &[]), None);
    }

    #[test]
    fn idleness_is_no_throttle() {
        assert_eq!(throttle_names(ThrottleReasons::GPU_IDLE), Vec::<String>::new());
        assert_eq!(throttle_names(ThrottleReasons::empty()), Vec::<String>::new());
        let two = ThrottleReasons::SW_POWER_CAP | ThrottleReasons::GPU_IDLE;
        assert_eq!(throttle_names(two), ["sw_power_cap"]);
    }

    #[test]
    fn a_process_is_as_busy_as_its_busiest_sample() {
        let busy = |samples: Option<&[(u32, u32)]>| {
            let all = with_busy(&[5, 6], samples);
            all.into_iter().map(|process| process.busy_percent).collect::<Vec<_>>()
        };
        assert_eq!(busy(None), [None, None]);
        assert_eq!(busy(Some(&[])), [Some(0), Some(0)]);
        assert_eq!(busy(Some(&[(5, 3), (9, 80), (5, 40), (5, 0)])), [Some(40), Some(0)]);
    }

    #[test]
    fn without_the_library_there_is_no_gpu() {
        // None on a machine without NVIDIA's driver, and no crash on a machine with it.
        let _ = open(0);
    }
}
