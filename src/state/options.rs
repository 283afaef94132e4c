//! Options and report of taking in a state.

/// How a layer takes in a state.
///
/// ```
/// use syncbn::state::LoadOptions;
/// let options = LoadOptions { strict: false, ..LoadOptions::default() };
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// Whether the state must have exactly the layer's tensors, as with `strict` in PyTorch. True
    /// by default. Otherwise the layer keeps its own values of missing tensors, and ignores tensors
    /// that it does not have. A counter may always be missing, unless the momentum is the
    /// cumulative average, which needs it.
    pub strict: bool,
    /// Accepts NaN and infinity, such as those of a diverged run.
    pub allow_non_finite: bool,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { strict: true, allow_non_finite: false }
    }
}

/// Missing and unexpected tensors of a state that a layer took in, as in the result of PyTorch's
/// `load_state_dict`. The names are those of the file, or PyTorch's for a state that comes from no
/// file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Tensors of the layer that the state does not have. They stayed as they were.
    pub missing: Vec<String>,
    /// Tensors of the state that the layer does not have. They were ignored. For a file this
    /// includes other tensors at the layer's path.
    pub unexpected: Vec<String>,
}
