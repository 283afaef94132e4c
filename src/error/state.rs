//! States that are not those of a layer.

/// A state that is not one of the layer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// A tensor that the layer needs is not there.
    #[error("{name} is missing; found: {}", if found.is_empty() { "nothing".to_owned() } else { found.join(", ") })]
    Missing {
        /// Name of the tensor.
        name: String,
        /// The names that are there.
        found: Vec<String>,
    },
    /// A tensor that the layer has no place for.
    #[error("{name} is there, but the layer was configured without it; leave it out of the state")]
    Unexpected {
        /// Name of the tensor.
        name: String,
    },
    /// A tensor of another shape.
    #[error("{name} has shape {found:?}, expected {expected:?}")]
    Shape {
        /// Name of the tensor.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape expected.
        expected: Vec<usize>,
    },
    /// A tensor that is not a vector.
    #[error("{name} has shape {found:?}, expected one dimension: [num_features]")]
    Rank {
        /// Name of the tensor.
        name: String,
        /// Its shape.
        found: Vec<usize>,
    },
    /// A tensor of another type.
    #[error("{name} is of type {found}, expected {expected}")]
    Dtype {
        /// Name of the tensor.
        name: String,
        /// Its type.
        found: String,
        /// The type expected.
        expected: String,
    },
    /// A value that is NaN or infinite.
    #[error(
        "{name}[{channel}] is {found}, expected a finite number; LoadOptions::allow_non_finite accepts it"
    )]
    NotFinite {
        /// Name of the tensor.
        name: String,
        /// The first such channel.
        channel: usize,
        /// The value.
        found: f32,
    },
    /// A variance below 0.
    #[error("{name}[{channel}] is {found}, expected a variance of at least 0")]
    NegativeVariance {
        /// Name of the tensor.
        name: String,
        /// The first such channel.
        channel: usize,
        /// The value.
        found: f32,
    },
    /// A counter below 0.
    #[error("{name} is {found}, expected at least 0")]
    NegativeCount {
        /// Name of the tensor.
        name: String,
        /// The value.
        found: i64,
    },
    /// Bytes that are not a safetensors file.
    #[error("not a safetensors file: {message}")]
    Format {
        /// What the format's library says.
        message: String,
    },
    /// Bytes of a broadcast that are not a state.
    #[error("what was broadcast is not a state: {found_bytes} bytes of another form")]
    Message {
        /// How many bytes there are.
        found_bytes: usize,
    },
    /// A file that cannot be read or written.
    #[error("{path}: {message}")]
    File {
        /// Path of the file.
        path: String,
        /// What the system says.
        message: String,
    },
}
