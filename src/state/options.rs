//! How strictly a state is taken in, and what came of it.

/// How a layer takes in a state.
///
/// ```
/// use syncbn::state::LoadOptions;
/// let options = LoadOptions { strict: false, ..LoadOptions::default() };
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// Whether the state has what the layer has, no more and no less, as with `strict` in PyTorch:
    /// true by default. Otherwise the layer keeps what is missing, and leaves out what it has no
    /// place for. A counter may be missing anyway, except where the momentum is the cumulative
    /// average, which is formed with it.
    pub strict: bool,
    /// Accepts NaN and infinity, as a run that diverged leaves them.
    pub allow_non_finite: bool,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { strict: true, allow_non_finite: false }
    }
}

/// What a layer found when it took in a state, as the result of `load_state_dict` in PyTorch. The
/// names are those of the file, or PyTorch's for a state that comes from no file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// What the layer has and the state has not: it stayed as it was.
    pub missing: Vec<String>,
    /// What the state has and the layer has not: it was left out. Of a file, tensors that lie beside
    /// those of the layer count.
    pub unexpected: Vec<String>,
}
