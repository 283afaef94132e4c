//! Every error of the crate, and the two ways in which one leaves a call that returns a tensor.

use std::cell::Cell;
use std::panic::resume_unwind;

/// Any error of this crate.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An error of the layer, or of the exchange with other ranks.
    #[error(transparent)]
    Layer(#[from] syncbn::Error),
    /// A setting outside its range.
    #[error("{name} is {found}; allowed is {allowed}")]
    Setting {
        /// Name of the setting.
        name: &'static str,
        /// The value found.
        found: f64,
        /// The values allowed.
        allowed: &'static str,
    },
    /// An activation of Burn's that no kernel has.
    #[error(
        "no kernel has the activation {found}; allowed are Identity, Relu, LeakyRelu, \
         HardSwish, Gelu, GeluApproximate and Elu"
    )]
    Activation {
        /// The activation found.
        found: String,
    },
    /// A conversion to Burn's layer that would lose the activation.
    #[error(
        "Burn's BatchNorm applies no activation, and this layer applies {found}: set it to \
         None, and apply it behind the layer"
    )]
    NotInBurn {
        /// The activation found.
        found: String,
    },
    /// Training on a device of which no [`Rank`](crate::Rank) is known.
    #[error(
        "{device} belongs to no rank: training normalizes over a group, so make the device with \
         syncbn_burn::Rank and keep \
         the rank while models are made on it"
    )]
    NoRank {
        /// The device found.
        device: String,
    },
    /// Backward of a module that has been dropped, with all its clones.
    #[error(
        "the module was dropped before backward of its forward call: keep it, or a \
         clone, until then"
    )]
    Gone,
    /// A tensor that Burn does not hold on a wgpu device.
    #[error("{argument} does not lie on one of Burn's wgpu devices: {found}")]
    Backend {
        /// Name of the tensor.
        argument: &'static str,
        /// Where it lies.
        found: String,
    },
    /// A tensor of a type that the layer, or Burn on the tensor's device, does not compute with.
    #[error(
        "{argument} is stored as {found}; allowed are f32, f16 and bf16 where Burn \
         supports them on its device"
    )]
    DType {
        /// Name of the tensor.
        argument: &'static str,
        /// The type found.
        found: String,
    },
    /// An input of other dimensions than (N, C, ...), in evaluation; in training, [`Error::Layer`]
    /// says it.
    #[error("input has the dimensions {found:?}, expected [batch, {channels}, ...]")]
    Input {
        /// The dimensions found.
        found: Vec<usize>,
        /// Channels of the layer.
        channels: usize,
    },
    /// A residual of other dimensions than the input, in evaluation; in training,
    /// [`Error::Layer`] says it.
    #[error("residual has the dimensions {found:?}, expected {expected:?}, those of the input")]
    Residual {
        /// The dimensions found.
        found: Vec<usize>,
        /// Those of the input.
        expected: Vec<usize>,
    },
    /// A tensor on another device than the module.
    #[error("{argument} lies on {found}, expected {expected}, the device of the module")]
    OtherDevice {
        /// Name of the tensor.
        argument: &'static str,
        /// The device found.
        found: String,
        /// That of the module.
        expected: String,
    },
    /// Burn's runtime did not give the memory of a tensor.
    #[error("Burn's runtime does not give the buffer of {argument}: {message}")]
    Runtime {
        /// Name of the tensor.
        argument: &'static str,
        /// The message of the runtime.
        message: String,
    },
    /// A wgpu device that did not open, or that Burn did not take.
    #[error("no device for Burn: {message}")]
    Device {
        /// The message of wgpu or Burn.
        message: String,
    },
}

thread_local! {
    /// Whether this thread is in a call that takes a failure as a value.
    static CATCHES: Cell<bool> = const { Cell::new(false) };
}

/// Leaves a call that can only return a tensor, as Burn's own operations do: by unwinding.
#[expect(
    clippy::panic,
    reason = "forward and backward of a Burn module return tensors, and Burn's own fail this way"
)]
pub(crate) fn raise(error: Error) -> ! {
    if CATCHES.get() {
        // `catch` recognizes the payload by its type. Unlike a panic, this prints nothing.
        resume_unwind(Box::new(error))
    }
    panic!("{error}")
}

/// Runs a call and takes a failure that was [raised](raise) in it as a value. Other panics go on.
pub(crate) fn catch<T>(call: impl FnOnce() -> T) -> Result<T, Error> {
    let before = CATCHES.replace(true);
    // The caller gets nothing of what the call had begun, so nothing half done is seen.
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(call));
    CATCHES.set(before);
    result.map_err(|payload| match payload.downcast::<Error>() {
        Ok(error) => *error,
        Err(payload) => resume_unwind(payload),
    })
}
