//! The queue of a real device, by way of the driver's own interface: libtorch has events, but its
//! binding to Rust has not.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use cudarc::driver::sys::{self, CUdevice_attribute as Attribute, CUevent_flags};
use cudarc::driver::{CudaContext, CudaEvent, CudaStream, DriverError, result};
use tch::{Device, Kind, Tensor};

use super::queue::{Mark, Memory, Queue};

/// Whether the driver's library can be loaded. Everything else in cudarc panics when it cannot.
fn is_present() -> bool {
    // SAFETY: loading runs the library's initializers. It is the driver's own library, which libtorch
    // would load in the same way; nothing in this program depends on it not being loaded.
    unsafe { sys::is_culib_present() }
}

/// The functions of the driver that are called here. A driver that is too old lacks some, and cudarc
/// panics when it calls one that is not there.
const FUNCTIONS: [&str; 15] = [
    "cuInit",
    "cuDeviceGetCount",
    "cuDeviceGet",
    "cuDeviceGetAttribute",
    "cuDevicePrimaryCtxRetain",
    "cuDevicePrimaryCtxRelease_v2",
    "cuCtxGetCurrent",
    "cuCtxSetCurrent",
    "cuMemGetInfo_v2",
    "cuStreamSynchronize",
    "cuEventCreate",
    "cuEventDestroy_v2",
    "cuEventRecord",
    "cuEventSynchronize",
    "cuEventElapsedTime",
];

/// A function that the driver should have and has not. Panics when there is no driver.
fn missing_function() -> Option<&'static str> {
    // SAFETY: as for `is_present`; the symbols are only looked up, never called as this type.
    let found = |name: &str| unsafe { sys::culib().get::<*const ()>(name).is_ok() };
    FUNCTIONS.into_iter().find(|name| !found(name))
}

/// What the driver says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DriverState {
    /// There is no `libcuda`.
    Missing,
    /// It cannot be used, and why.
    Broken(String),
    /// It has so many devices.
    Devices(u32),
}

impl DriverState {
    /// Asks the driver. Makes no context, so no memory of the device is used.
    pub fn ask() -> DriverState {
        if !is_present() {
            return DriverState::Missing;
        }
        if let Some(name) = missing_function() {
            return DriverState::Broken(format!("it has no function {name}"));
        }
        match result::init().and_then(|()| result::device::get_count()) {
            Ok(count) => DriverState::Devices(u32::try_from(count).unwrap_or(0)),
            Err(DriverError(sys::CUresult::CUDA_ERROR_NO_DEVICE)) => DriverState::Devices(0),
            Err(DriverError(code)) => DriverState::Broken(format!("it answers {code:?}")),
        }
    }
}

/// The queue that libtorch uses: the default stream of the device's primary context.
pub struct Driver {
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    start: CudaEvent,
    end: CudaEvent,
    origin: Instant,
    index: u32,
    /// Made when it is first wanted, for the size that was wanted.
    filler: Option<(u32, Filler)>,
}

/// A square product of matrices in memory of its own. It computes much and touches little, so that it takes
/// long and leaves the cache to what is timed.
struct Filler {
    left: Tensor,
    right: Tensor,
    out: Tensor,
}

/// Side of the smallest matrices; each size doubles it.
const SMALLEST_SIDE: i64 = 256;

impl Filler {
    fn new(index: u32, size: u32) -> Result<Filler> {
        let side = SMALLEST_SIDE << size;
        let options = (Kind::Float, Device::Cuda(index as usize));
        let matrix = || Tensor::f_ones([side, side], options);
        Ok(Filler { left: matrix()?, right: matrix()?, out: matrix()? })
    }

    fn issue(&self) -> Result<()> {
        drop(self.left.f_mm_out(&self.out, &self.right)?);
        Ok(())
    }
}

/// An error by its name, which says what the driver's own words would.
fn told(error: DriverError) -> anyhow::Error {
    anyhow!("the CUDA driver answers {:?}", error.0)
}

impl Driver {
    /// Retains the primary context of a device, which is the one that libtorch uses too.
    ///
    /// # Errors
    /// When there is no driver, or it refuses.
    pub fn open(index: u32) -> Result<Driver> {
        if let DriverState::Missing | DriverState::Broken(_) = DriverState::ask() {
            bail!("the CUDA driver cannot be used");
        }
        let context = CudaContext::new(index as usize).map_err(told)?;
        // The flags are given since the default of this call makes events that cannot be timed.
        let event = || context.new_event(Some(CUevent_flags::CU_EVENT_DEFAULT)).map_err(told);
        Ok(Driver {
            start: event()?,
            end: event()?,
            stream: context.default_stream(),
            context,
            origin: Instant::now(),
            index,
            filler: None,
        })
    }

    /// The size of the cache, and half of the memory that is free now. Where the device has no memory
    /// of its own, as on a Jetson, the host's limit holds too.
    ///
    /// # Errors
    /// What the driver reports.
    pub fn memory(&self, host_limit: u64) -> Result<Memory> {
        let attribute = |which| self.context.attribute(which).map_err(told);
        let l2 = attribute(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?;
        let integrated = attribute(Attribute::CU_DEVICE_ATTRIBUTE_INTEGRATED)? != 0;
        let (free, _total) = self.context.mem_get_info().map_err(told)?;
        let own = free as u64 / 2;
        Ok(Memory {
            l2_bytes: u64::try_from(l2).context("the size of the L2 cache")?,
            limit_bytes: if integrated { own.min(host_limit) } else { own },
        })
    }
}

impl Queue for Driver {
    fn host_micros(&mut self) -> f64 {
        self.origin.elapsed().as_secs_f64() * 1e6
    }

    fn mark(&mut self, mark: Mark) -> Result<()> {
        let event = match mark {
            Mark::Start => &self.start,
            Mark::End => &self.end,
        };
        event.record(&self.stream).map_err(told)
    }

    fn synchronize(&mut self) -> Result<()> {
        self.stream.synchronize().map_err(told)
    }

    fn between_marks(&mut self) -> Result<f64> {
        Ok(f64::from(self.start.elapsed_ms(&self.end).map_err(told)?) * 1e3)
    }

    fn occupy(&mut self, size: u32, pieces: usize) -> Result<()> {
        if self.filler.as_ref().is_none_or(|(made, _)| *made != size) {
            self.filler = Some((size, Filler::new(self.index, size)?));
        }
        let (_, filler) = self.filler.as_ref().context("it was just made")?;
        (0..pieces).try_for_each(|_| filler.issue())
    }

    fn free_bytes(&mut self) -> Result<u64> {
        let (free, _total) = self.context.mem_get_info().map_err(told)?;
        Ok(free as u64)
    }
}

#[cfg(test)]
mod tests;
