//! The device that a policy computes on: the provider, its memory, and the queue that all of its graphs share.

use std::sync::Arc;

use super::environment::Environment;
use super::memory::cuda::CudaMemory;
use super::memory::host::HostMemory;
use super::memory::{DeviceMemoryUse, Memory};
use super::provider;
use super::tensors::Tensors;
use crate::error::Result;
use crate::provider::Provider;

/// The memory of tensors that both the host and the graphs touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceMemory {
    /// As suits the provider: unified on the CPU, separate on a GPU.
    #[default]
    Auto,
    /// On each side, with copies between them. On the CPU this is what a GPU does, tried without one.
    Separate,
    /// In one place that both see. On a GPU these are pages of the host's memory, which the GPU reads and writes in
    /// place: for boards where both have the same DRAM, such as a Jetson.
    Unified,
}

/// Options of opening a device.
#[derive(Debug, Clone, Copy)]
pub struct DeviceOptions {
    /// The provider that computes.
    pub provider: Provider,
    /// The GPU, as CUDA counts them.
    pub gpu: u32,
    /// The memory of tensors that the host touches.
    pub memory: DeviceMemory,
    /// Let the thread that waits for the GPU sleep, where it would otherwise spin.
    pub sleep: bool,
}

/// A device, open. Sessions made on it must be dropped before its last copy: they hold its stream, so that every
/// [`Graph`](super::Graph) keeps one.
#[derive(Debug, Clone)]
pub struct Device {
    options: DeviceOptions,
    memory: Arc<dyn Memory>,
}

impl Device {
    /// Opens the device that `options` name.
    ///
    /// # Errors
    /// [`ErrorKind::Provider`](crate::ErrorKind::Provider), saying what is missing and what to do, when the provider
    /// or the GPU cannot be used.
    pub fn open(environment: &Environment, options: DeviceOptions) -> Result<Self> {
        let memory: Arc<dyn Memory> = match options.provider {
            Provider::Cpu => Arc::new(HostMemory { separate: options.memory == DeviceMemory::Separate }),
            Provider::Cuda | Provider::TensorRt => {
                // First, because it names what is missing; and it brings in the CUDA runtime it was built for.
                provider::probe(environment, options.provider)?;
                let mapped = options.memory == DeviceMemory::Unified;
                Arc::new(CudaMemory::open(options.gpu, mapped, options.sleep)?)
            }
        };
        Ok(Device { options, memory })
    }

    /// The provider that computes.
    pub fn provider(&self) -> Provider {
        self.options.provider
    }

    /// An empty set of tensors in this device's memory.
    pub fn tensors(&self) -> Tensors {
        Tensors::new(Arc::clone(&self.memory))
    }

    /// Returns true if a graph may write the memory it reads, as the denoise step does on the CPU. TensorRT does not
    /// promise it, and separate memory on the CPU goes the same way.
    pub fn in_place(&self) -> bool {
        match self.options.provider {
            Provider::Cpu => self.options.memory != DeviceMemory::Separate,
            Provider::Cuda => true,
            Provider::TensorRt => false,
        }
    }

    /// Asks what the device's memory has left, where it has one of its own.
    ///
    /// # Errors
    /// [`ErrorKind::Provider`](crate::ErrorKind::Provider) when the device does not answer.
    pub fn memory_use(&self) -> Result<Option<DeviceMemoryUse>> {
        self.memory.usage()
    }

    pub(super) fn options(&self) -> &DeviceOptions {
        &self.options
    }

    pub(super) fn memory(&self) -> &Arc<dyn Memory> {
        &self.memory
    }
}
