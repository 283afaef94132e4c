//! Error scopes around commands to a device that may be the application's own.

use super::Gpu;
use crate::error::{Error, GpuError};

/// Catches validation, memory and internal errors of this thread's commands from opening to
/// closing.
pub(super) struct Scope {
    device: String,
    phase: &'static str,
    validation: wgpu::ErrorScopeGuard,
    memory: wgpu::ErrorScopeGuard,
    internal: wgpu::ErrorScopeGuard,
}

impl Scope {
    pub fn open(gpu: &Gpu, phase: &'static str) -> Self {
        Self::on(&gpu.context.device, gpu.name(), phase)
    }

    /// Around commands to a device that is being opened, under its name.
    pub fn on(device: &wgpu::Device, name: &str, phase: &'static str) -> Self {
        Self {
            device: name.to_owned(),
            phase,
            validation: device.push_error_scope(wgpu::ErrorFilter::Validation),
            memory: device.push_error_scope(wgpu::ErrorFilter::OutOfMemory),
            internal: device.push_error_scope(wgpu::ErrorFilter::Internal),
        }
    }

    /// An error of this phase that wgpu returned instead of raising it.
    pub fn refused(&self, message: String) -> Error {
        GpuError::Refused { device: self.device.clone(), phase: self.phase, message }.into()
    }

    /// Pops the scopes at once. The future returns the error that they caught. It is ready
    /// natively, and must be awaited in a browser.
    pub fn close(self) -> impl Future<Output = Result<(), Error>> + use<> {
        let Self { device, phase, validation, memory, internal } = self;
        // Scopes are popped in the reverse order of their pushes.
        let internal = internal.pop();
        let memory = memory.pop();
        let validation = validation.pop();
        async move {
            let out_of_memory = memory.await;
            let refused = match validation.await {
                Some(error) => Some(error),
                None => internal.await,
            };
            if let Some(error) = out_of_memory {
                return Err(
                    GpuError::OutOfMemory { device, phase, message: error.to_string() }.into()
                );
            }
            match refused {
                Some(error) => {
                    Err(GpuError::Refused { device, phase, message: error.to_string() }.into())
                }
                None => Ok(()),
            }
        }
    }
}
