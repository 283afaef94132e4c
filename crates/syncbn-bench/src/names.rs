//! Owns the names of storage types, layouts and epilogues, on command lines and in the output.

use syncbn::{DType, Layout, low_level::Epilogue};

/// Storage types by their names.
pub const DTYPES: [(&str, DType); 3] =
    [("f32", DType::F32), ("f16", DType::F16), ("bf16", DType::BF16)];
/// Layouts by their names.
pub const LAYOUTS: [(&str, Layout); 2] =
    [("first", Layout::ChannelsFirst), ("last", Layout::ChannelsLast)];
/// Epilogues by their names.
pub const EPILOGUES: [(&str, Epilogue); 3] =
    [("none", Epilogue::NONE), ("relu", Epilogue::RELU), ("add_relu", Epilogue::ADD_RELU)];

/// The name of a value in one of the lists above.
pub fn name_of<T: PartialEq>(choices: &[(&'static str, T)], value: &T) -> &'static str {
    choices.iter().find(|(_, choice)| choice == value).map_or("other", |(name, _)| name)
}
