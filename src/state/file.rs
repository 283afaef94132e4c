//! Safetensors: a state as bytes and files.

use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::{LoadOptions, Names, Naming, StateDict};
use crate::config::{BatchNormConfig, Momentum};
use crate::error::StateError;

impl StateDict {
    /// The state as the bytes of a safetensors file, every name behind `prefix`.
    ///
    /// Vectors are f32 of shape \[C\], the counter is i64 of shape \[\], as PyTorch writes them.
    /// MindSpore's names have none for the counter, and it is left out.
    ///
    /// # Errors
    /// [`StateError::Format`] when the format does not hold the state.
    pub fn to_safetensors(&self, naming: Naming, prefix: &str) -> Result<Vec<u8>, StateError> {
        let names = Names::new(naming, prefix);
        let counter =
            self.num_batches_tracked.map(|count| count.min(i64::MAX as u64).to_le_bytes());
        let vectors = [
            (names.weight, &self.weight),
            (names.bias, &self.bias),
            (names.running_mean, &self.running_mean),
            (names.running_var, &self.running_var),
        ];
        let little_endian =
            |values: &Vec<f32>| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        let vectors: Vec<(String, usize, Vec<u8>)> = vectors
            .into_iter()
            .filter_map(|(name, values)| {
                values.as_ref().map(|values| (name, values.len(), little_endian(values)))
            })
            .collect();
        let mut views = Vec::with_capacity(5);
        for (name, len, bytes) in &vectors {
            views.push((
                name.clone(),
                TensorView::new(Dtype::F32, vec![*len], bytes).map_err(format_error)?,
            ));
        }
        if let (Some(name), Some(bytes)) = (names.num_batches_tracked, &counter) {
            views.push((
                name,
                TensorView::new(Dtype::I64, Vec::new(), bytes).map_err(format_error)?,
            ));
        }
        safetensors::serialize(views, None).map_err(format_error)
    }

    /// Writes [`to_safetensors`](Self::to_safetensors) to a file, of which it replaces everything:
    /// each layer needs one of its own.
    ///
    /// # Errors
    /// [`StateError::File`] when it cannot be written.
    pub fn save(&self, path: &Path, naming: Naming, prefix: &str) -> Result<(), StateError> {
        std::fs::write(path, self.to_safetensors(naming, prefix)?)
            .map_err(|error| file_error(path, &error))
    }

    /// Reads the state of a layer with this configuration from the bytes of a safetensors file,
    /// which may hold more.
    ///
    /// # Errors
    /// [`StateError`] names what is missing, unexpected, of another shape or type, not finite, or
    /// negative.
    pub fn from_safetensors(
        bytes: &[u8],
        config: &BatchNormConfig,
        options: &LoadOptions,
    ) -> Result<Self, StateError> {
        let file = SafeTensors::deserialize(bytes).map_err(format_error)?;
        let names = options
            .naming
            .map_or_else(|| detect(&file, options), |naming| Names::new(naming, &options.prefix));
        let vector = |name: &str| read_vector(&file, name);
        let state = Self {
            weight: vector(&names.weight)?,
            bias: vector(&names.bias)?,
            running_mean: vector(&names.running_mean)?,
            running_var: vector(&names.running_var)?,
            num_batches_tracked: match &names.num_batches_tracked {
                Some(name) => read_counter(&file, name)?,
                None => None,
            },
        };
        state.check_as(config, &names, options.allow_non_finite).map_err(|error| match error {
            // What the file does hold helps to find the right prefix.
            StateError::Missing { name, .. } => {
                StateError::Missing { name, found: sorted_names(&file) }
            }
            other => other,
        })?;
        let counter = names.num_batches_tracked.filter(|_| config.track_running_stats);
        if let Some(name) = counter.filter(|_| state.num_batches_tracked.is_none()) {
            return Err(StateError::Missing { name, found: sorted_names(&file) });
        }
        if state.num_batches_tracked.is_none()
            && config.track_running_stats
            && config.momentum == Momentum::Cumulative
        {
            let name =
                Names::new(Naming::Torch, &options.prefix).num_batches_tracked.unwrap_or_default();
            return Err(StateError::Missing { name, found: sorted_names(&file) });
        }
        Ok(state)
    }

    /// Reads [`from_safetensors`](Self::from_safetensors) from a file.
    ///
    /// # Errors
    /// As [`from_safetensors`](Self::from_safetensors), and [`StateError::File`] when it cannot be
    /// read.
    pub fn load(
        path: &Path,
        config: &BatchNormConfig,
        options: &LoadOptions,
    ) -> Result<Self, StateError> {
        let bytes = std::fs::read(path).map_err(|error| file_error(path, &error))?;
        Self::from_safetensors(&bytes, config, options)
    }
}

/// The convention of which the file has more names; PyTorch's where it has none of either.
fn detect(file: &SafeTensors<'_>, options: &LoadOptions) -> Names {
    let present =
        |names: &Names| names.all().iter().filter(|name| file.tensor(name).is_ok()).count();
    let [torch, mindspore] =
        [Naming::Torch, Naming::MindSpore].map(|naming| Names::new(naming, &options.prefix));
    if present(&mindspore) > present(&torch) { mindspore } else { torch }
}

fn read_vector(file: &SafeTensors<'_>, name: &str) -> Result<Option<Vec<f32>>, StateError> {
    let Ok(tensor) = file.tensor(name) else { return Ok(None) };
    check_dtype(name, &tensor, Dtype::F32)?;
    if tensor.shape().len() != 1 {
        let name = name.to_owned();
        let found = tensor.shape().to_vec();
        return Err(StateError::Rank { name, found });
    }
    let value = |bytes: &[u8; 4]| f32::from_le_bytes(*bytes);
    Ok(Some(tensor.data().as_chunks().0.iter().map(value).collect()))
}

fn read_counter(file: &SafeTensors<'_>, name: &str) -> Result<Option<u64>, StateError> {
    let Ok(tensor) = file.tensor(name) else { return Ok(None) };
    check_dtype(name, &tensor, Dtype::I64)?;
    let Some(bytes) = tensor.data().first_chunk().filter(|_| tensor.data().len() == 8) else {
        let name = name.to_owned();
        let found = tensor.shape().to_vec();
        return Err(StateError::Shape { name, found, expected: Vec::new() });
    };
    let count = i64::from_le_bytes(*bytes);
    u64::try_from(count)
        .map(Some)
        .map_err(|_| StateError::NegativeCount { name: name.to_owned(), found: count })
}

fn check_dtype(name: &str, tensor: &TensorView<'_>, expected: Dtype) -> Result<(), StateError> {
    if tensor.dtype() == expected {
        return Ok(());
    }
    let found = tensor.dtype().to_string();
    let expected = expected.to_string();
    Err(StateError::Dtype { name: name.to_owned(), found, expected })
}

fn sorted_names(file: &SafeTensors<'_>) -> Vec<String> {
    let mut names: Vec<String> = file.names().into_iter().map(str::to_owned).collect();
    names.sort();
    names
}

fn format_error(error: safetensors::SafeTensorError) -> StateError {
    StateError::Format { message: error.to_string() }
}

fn file_error(path: &Path, error: &std::io::Error) -> StateError {
    StateError::File { path: path.display().to_string(), message: error.to_string() }
}
