//! What the parts of a state are called.

/// Whose names a file uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// `weight`, `bias`, `running_mean`, `running_var`, `num_batches_tracked`.
    Torch,
    /// `gamma`, `beta`, `moving_mean`, `moving_variance`; steps are not counted.
    MindSpore,
}

/// The full names in one convention behind one prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Names {
    pub weight: String,
    pub bias: String,
    pub running_mean: String,
    pub running_var: String,
    pub num_batches_tracked: Option<String>,
}

impl Names {
    pub fn new(naming: Naming, prefix: &str) -> Self {
        let dot = if prefix.is_empty() || prefix.ends_with('.') { "" } else { "." };
        let full = |name: &str| format!("{prefix}{dot}{name}");
        match naming {
            Naming::Torch => Self {
                weight: full("weight"),
                bias: full("bias"),
                running_mean: full("running_mean"),
                running_var: full("running_var"),
                num_batches_tracked: Some(full("num_batches_tracked")),
            },
            Naming::MindSpore => Self {
                weight: full("gamma"),
                bias: full("beta"),
                running_mean: full("moving_mean"),
                running_var: full("moving_variance"),
                num_batches_tracked: None,
            },
        }
    }

    /// All of them.
    pub fn all(&self) -> Vec<&str> {
        let vectors = [&self.weight, &self.bias, &self.running_mean, &self.running_var];
        vectors.into_iter().chain(&self.num_batches_tracked).map(String::as_str).collect()
    }
}
