//! Owns the names of storage types, layouts and epilogues, on command lines and in the output.

use syncbn::{DType, Layout, config::Activation, low_level::Epilogue};

/// Storage types by their names.
pub const DTYPES: [(&str, DType); 3] =
    [("f32", DType::F32), ("f16", DType::F16), ("bf16", DType::BF16)];
/// Layouts by their names.
pub const LAYOUTS: [(&str, Layout); 2] =
    [("first", Layout::ChannelsFirst), ("last", Layout::ChannelsLast)];
/// Epilogues by their names.
pub const EPILOGUES: [(&str, Epilogue); 18] = [
    ("none", Epilogue::NONE),
    ("relu", Epilogue::RELU),
    ("leaky_relu", LEAKY_RELU),
    ("relu6", Epilogue::of(Activation::Relu6)),
    ("silu", Epilogue::of(Activation::Silu)),
    ("hardswish", Epilogue::of(Activation::Hardswish)),
    ("gelu", Epilogue::of(Activation::Gelu)),
    ("gelu_tanh", Epilogue::of(Activation::GeluTanh)),
    ("elu", ELU),
    ("add", Epilogue::ADD),
    ("add_relu", Epilogue::ADD_RELU),
    ("add_leaky_relu", LEAKY_RELU.after_residual()),
    ("add_relu6", Epilogue::of(Activation::Relu6).after_residual()),
    ("add_silu", Epilogue::of(Activation::Silu).after_residual()),
    ("add_hardswish", Epilogue::of(Activation::Hardswish).after_residual()),
    ("add_gelu", Epilogue::of(Activation::Gelu).after_residual()),
    ("add_gelu_tanh", Epilogue::of(Activation::GeluTanh).after_residual()),
    ("add_elu", ELU.after_residual()),
];
const LEAKY_RELU: Epilogue = Epilogue::leaky_relu(0.01);
const ELU: Epilogue = Epilogue::of(Activation::Elu(1.0));

/// The name of a value in one of the lists above.
pub fn name_of<T: PartialEq>(choices: &[(&'static str, T)], value: &T) -> &'static str {
    choices.iter().find(|(_, choice)| choice == value).map_or("other", |(name, _)| name)
}
