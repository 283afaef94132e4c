//! Owns the list of what cases ask for, and what of it the library does not have. Such cases are
//! counted apart, never as passed.

use syncbn::config::Activation;
use syncbn::low_level::Epilogue;

/// The epilogue that a case names `fused`, with the slope or alpha of its activation; where the
/// library has none such, why its cases cannot run.
pub fn epilogue(fused: Option<&str>, number: Option<f32>) -> Result<Epilogue, String> {
    let name = fused.unwrap_or("none");
    if name == "add" {
        return Ok(Epilogue::ADD);
    }
    let (adds, name) = name.strip_prefix("add_").map_or((false, name), |name| (true, name));
    let number = || number.ok_or_else(|| format!("the case does not say the number of {name:?}"));
    let activation = match name {
        "none" => Activation::None,
        "relu" => Activation::Relu,
        "leaky_relu" => Activation::LeakyRelu(number()?),
        "relu6" => Activation::Relu6,
        "silu" => Activation::Silu,
        "hardswish" => Activation::Hardswish,
        "gelu" => Activation::Gelu,
        "gelu_tanh" => Activation::GeluTanh,
        "elu" => Activation::Elu(number()?),
        other => return Err(format!("the layer has no activation {other:?}")),
    };
    let epilogue = Epilogue::of(activation);
    Ok(if adds { epilogue.after_residual() } else { epilogue })
}
