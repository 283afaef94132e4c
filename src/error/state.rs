//! States that are not those of a layer.

/// A state that is not one of the layer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// A tensor that the layer needs is not there.
    #[error("{}", missing(name, found, *of, guess.as_deref()))]
    Missing {
        /// Name of the tensor.
        name: String,
        /// The names that are there. For a file, the few that are nearest to it.
        found: Vec<String>,
        /// Number of tensors that are there.
        of: usize,
        /// The path of the layer that was probably meant.
        guess: Option<String>,
    },
    /// A tensor that the layer has no place for.
    #[error(
        "{name} is there, but the layer was configured without it or does not know it; leave it \
        out of the state, or load with LoadOptions::strict = false"
    )]
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
        "{name}[{channel}] is {found}, expected a finite number; LoadOptions::allow_non_finite \
        accepts it"
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
    /// A value that the layer's type does not hold exactly.
    #[error("{name}[{channel}] is {found}, expected a number that is exact in f32")]
    NotExact {
        /// Name of the tensor.
        name: String,
        /// The first such channel.
        channel: usize,
        /// The value.
        found: f64,
    },
    /// A counter whose value is not a number of steps.
    #[error("{name} is {found}, expected a whole number of at least 0, below 2^64")]
    Count {
        /// Name of the tensor.
        name: String,
        /// The value.
        found: String,
    },
    /// A table of names that has no name for a tensor to be written.
    #[error("the names of {framework} have none for {tensor}; choose another table of names")]
    NoName {
        /// The framework of the names.
        framework: String,
        /// The tensor.
        tensor: &'static str,
    },
    /// An argument of folding that does not fit the normalization.
    #[error("{argument} of the layer to fold into: found {found}, expected {expected}")]
    Fold {
        /// Name of the argument.
        argument: &'static str,
        /// Its length, or its value.
        found: usize,
        /// The values that fit.
        expected: String,
    },
    /// Bytes that are not a safetensors file.
    #[error("not a safetensors file: {message}")]
    Format {
        /// The message of the format's library.
        message: String,
    },
    /// Bytes of a broadcast that are not a state.
    #[error("what was broadcast is not a state: {found_bytes} bytes of another form")]
    Message {
        /// Number of the bytes.
        found_bytes: usize,
    },
    /// A file that cannot be read or written.
    #[error("{path}: {message}")]
    File {
        /// Path of the file.
        path: String,
        /// The system's message.
        message: String,
    },
}

/// The message for a missing tensor, with the nearest names and a guess: at most three lines.
fn missing(name: &str, found: &[String], of: usize, guess: Option<&str>) -> String {
    let more = match of.saturating_sub(found.len()) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let found = if found.is_empty() { "nothing".to_owned() } else { found.join(", ") };
    let guess = guess.map_or(String::new(), |guess| format!("\n  did you mean {guess:?}?"));
    format!("{name} is missing; found: {found}{more}{guess}")
}
