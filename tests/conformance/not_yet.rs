//! Owns the list of what the library does not have yet. Such cases are counted apart, never as passed.
//!
//! When a feature arrives, its line goes away here, and its cases are run.

/// Why a case cannot run yet; `fused` is what it wants done within the same pass, if anything.
pub fn reason(fused: Option<&str>) -> Option<&'static str> {
    fused.map(|_| "the layer adds no residual and applies no activation within its own pass")
}
