//! Owns the list of what cases ask for, and what of it the library does not have. Such cases are
//! counted apart, never as passed.

use syncbn::config::Epilogue;

/// The epilogue that a case names `fused`, with the slope of its activation; where the library has
/// none such, why its cases cannot run.
pub fn epilogue(fused: Option<&str>, slope: Option<f32>) -> Result<Epilogue, String> {
    match fused {
        None => Ok(Epilogue::None),
        Some("relu") => Ok(Epilogue::Relu),
        Some("leaky_relu") => slope
            .map(Epilogue::LeakyRelu)
            .ok_or_else(|| "the case does not say its slope".to_owned()),
        Some("add") => Ok(Epilogue::Add),
        Some("add_relu") => Ok(Epilogue::AddRelu),
        Some(other) => Err(format!("the layer has no epilogue {other:?}")),
    }
}
