//! Owns the list of what the library does not have yet. Such cases are counted apart, never as passed.
//!
//! When a feature arrives, its line goes away here, and its cases are run.

/// What a case needs beyond f32, channels first, nothing fused.
#[derive(Debug, Default)]
pub struct Needs {
    /// Storage types of inputs and parameters: "f32", "f16", "bf16".
    pub dtypes: Vec<String>,
    pub channels_last: bool,
    /// A residual or an activation within the same pass.
    pub fused: bool,
}

/// Why a case cannot run yet.
pub fn reason(needs: &Needs) -> Option<&'static str> {
    if needs.dtypes.iter().any(|dtype| dtype != "f32") {
        return Some("storage types f16 and bf16");
    }
    let features = [(needs.channels_last, "channels last"), (needs.fused, "fused residual and activation")];
    features.into_iter().find(|(needed, _)| *needed).map(|(_, reason)| reason)
}
