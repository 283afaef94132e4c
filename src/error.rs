//! Every error of the crate, with the argument, the value found, the values allowed, and a remedy.
//!
//! Each subject has one small enum. [`Error`] is their union.

mod argument;
mod batch;
mod config;
mod device;
mod exchange;
mod lengths;
mod shape;
mod state;

pub use argument::ArgumentError;
pub(crate) use argument::{indexed, position};
pub use batch::BatchError;
pub use config::ConfigError;
pub use device::{GpuError, LimitError};
pub use exchange::{ExchangeError, GroupError};
pub use lengths::LengthsError;
pub use shape::ShapeError;
pub use state::StateError;

/// Any error of this crate.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Dimensions that no activation can have.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// A setting outside its range.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An argument of a call that does not fit the group, the layer or another argument.
    #[error(transparent)]
    Argument(#[from] ArgumentError),
    /// A tensor that a device cannot hold, bind or dispatch.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// A failure of a GPU, its driver, or the use of a buffer that belongs to another device.
    #[error(transparent)]
    Gpu(#[from] GpuError),
    /// A batch from which no statistics can be taken.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// A state that is not one of the layer.
    #[error(transparent)]
    State(#[from] StateError),
    /// Process groups that cannot be made.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// An exchange with other ranks that failed.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// One layer of a call of several; none of them is changed.
    #[error("request {index} of the joint call: {error}")]
    Joint {
        /// Number of the request.
        index: usize,
        /// Its error.
        error: Box<Error>,
    },
}
