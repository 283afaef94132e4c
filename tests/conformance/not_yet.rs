//! Owns the list of what cases ask for, and what of it the library does not have. Such cases are
//! counted apart, never as passed.

use syncbn::low_level::Epilogue;

/// The epilogue that a case names `fused`, with the slope of its activation; where the library has
/// none such, why its cases cannot run.
pub fn epilogue(fused: Option<&str>, slope: Option<f32>) -> Result<Epilogue, String> {
    match fused {
        None => Ok(Epilogue::NONE),
        Some("relu") => Ok(Epilogue::RELU),
        Some("leaky_relu") => leaky_relu(slope),
        Some("add") => Ok(Epilogue::ADD),
        Some("add_relu") => Ok(Epilogue::ADD_RELU),
        Some("add_leaky_relu") => Ok(leaky_relu(slope)?.after_residual()),
        Some(other) => Err(format!("the layer has no epilogue {other:?}")),
    }
}

fn leaky_relu(slope: Option<f32>) -> Result<Epilogue, String> {
    slope.map(Epilogue::leaky_relu).ok_or_else(|| "the case does not say its slope".to_owned())
}
