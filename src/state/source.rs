//! Origin of a state. With it, messages name tensors as the file does.

use std::sync::Arc;

use super::naming::{Naming, TENSORS};

/// The names of a state in its file. They do not count in comparisons: states with the same values
/// are equal.
#[derive(Clone, Debug, Default)]
pub(super) struct Source(Option<Arc<Names>>);

/// Names in a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Names {
    /// Of weight, bias, running mean, running variance and counter.
    pub tensors: [String; TENSORS],
    /// Names of other tensors at the path.
    pub beside: Vec<String>,
}

impl PartialEq for Source {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Source {
    pub fn new(names: Names) -> Self {
        Self(Some(Arc::new(names)))
    }

    /// The names of weight, bias, running mean, running variance and counter: PyTorch's where the
    /// file has none.
    pub fn names(&self) -> [String; TENSORS] {
        match &self.0 {
            Some(source) => source.tensors.clone(),
            None => Naming::TORCH.names("").map(Option::unwrap_or_default),
        }
    }

    pub fn beside(&self) -> &[String] {
        self.0.as_ref().map_or(&[], |names| &names.beside)
    }
}
