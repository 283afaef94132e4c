//! The tensors of a golden case; `tests/golden/README.md` has the formats. A broken file is a
//! message that names it.

use std::collections::BTreeMap;
use std::path::Path;

use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};
use syncbn::DType;

struct Stored {
    dims: Vec<usize>,
    values: Values,
}

enum Values {
    /// As f32, which holds every value of the type that they are stored as.
    Float(DType, Vec<f32>),
    F64(Vec<f64>),
    I64(Vec<i64>),
    Other(Dtype),
}

/// The tensors of one case.
pub struct Store {
    /// What messages call the file.
    file: String,
    tensors: BTreeMap<String, Stored>,
}

impl Store {
    pub fn open(path: &Path) -> Result<Self, String> {
        let bytes = std::fs::read(path)
            .map_err(|error| format!("{}: cannot be read: {error}", path.display()))?;
        Self::parse(&path.display().to_string(), &bytes)
    }

    /// The contents of a file, which messages call `name`.
    pub fn parse(name: &str, bytes: &[u8]) -> Result<Self, String> {
        let file = SafeTensors::deserialize(bytes)
            .map_err(|error| format!("{name}: is not safetensors: {error}"))?;
        let read = |(name, view): (String, safetensors::tensor::TensorView<'_>)| {
            let values = match view.dtype() {
                Dtype::F32 => Values::Float(DType::F32, words(view.data(), f32::from_le_bytes)),
                Dtype::F16 => Values::Float(
                    DType::F16,
                    words(view.data(), |word| f16::from_le_bytes(word).to_f32()),
                ),
                Dtype::BF16 => Values::Float(
                    DType::BF16,
                    words(view.data(), |word| bf16::from_le_bytes(word).to_f32()),
                ),
                Dtype::F64 => Values::F64(words(view.data(), f64::from_le_bytes)),
                Dtype::U32 => {
                    let words = words(view.data(), u32::from_le_bytes);
                    Values::I64(words.into_iter().map(i64::from).collect())
                }
                Dtype::I64 => Values::I64(words(view.data(), i64::from_le_bytes)),
                other => Values::Other(other),
            };
            (name, Stored { dims: view.shape().to_vec(), values })
        };
        Ok(Self { file: name.to_owned(), tensors: file.tensors().into_iter().map(read).collect() })
    }

    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Dimensions and values of a f32 tensor.
    pub fn f32(&self, name: &str) -> Result<(&[usize], &[f32]), String> {
        self.float(name, DType::F32)
    }

    /// Dimensions and values of a tensor that is stored as `dtype`.
    pub fn float(&self, name: &str, dtype: DType) -> Result<(&[usize], &[f32]), String> {
        match self.get(name)? {
            Stored { dims, values: Values::Float(stored, values) } if *stored == dtype => {
                Ok((dims, values))
            }
            other => Err(self.type_error(name, &dtype.to_string(), &other.values)),
        }
    }

    /// Dimensions and values of a f64 tensor.
    pub fn f64(&self, name: &str) -> Result<(&[usize], &[f64]), String> {
        match self.get(name)? {
            Stored { dims, values: Values::F64(values) } => Ok((dims, values)),
            other => Err(self.type_error(name, "f64", &other.values)),
        }
    }

    /// A f32 tensor with one value per channel.
    pub fn channel_f32(&self, name: &str, channels: usize) -> Result<Vec<f32>, String> {
        self.channel_float(name, DType::F32, channels)
    }

    /// A tensor that is stored as `dtype`, with one value per channel.
    pub fn channel_float(
        &self,
        name: &str,
        dtype: DType,
        channels: usize,
    ) -> Result<Vec<f32>, String> {
        let (dims, values) = self.float(name, dtype)?;
        if dims == [channels] {
            Ok(values.to_vec())
        } else {
            Err(self.shape_error(name, dims, &[channels]))
        }
    }

    /// A f64 tensor with one value per channel.
    pub fn channel_f64(&self, name: &str, channels: usize) -> Result<Vec<f64>, String> {
        let (dims, values) = self.f64(name)?;
        if dims == [channels] {
            Ok(values.to_vec())
        } else {
            Err(self.shape_error(name, dims, &[channels]))
        }
    }

    /// Dimensions and values of a tensor of any float type, in f64.
    pub fn any_float(&self, name: &str) -> Result<(&[usize], Vec<f64>), String> {
        match self.get(name)? {
            Stored { dims, values: Values::Float(_, values) } => {
                Ok((dims, values.iter().copied().map(f64::from).collect()))
            }
            Stored { dims, values: Values::F64(values) } => Ok((dims, values.clone())),
            other => Err(self.type_error(name, "a float", &other.values)),
        }
    }

    /// A list of counts or indices.
    pub fn counts(&self, name: &str) -> Result<Vec<u64>, String> {
        match self.get(name)? {
            Stored { values: Values::I64(values), .. } => {
                let negative = |_| format!("{}: {name} holds a negative count", self.file);
                values.iter().map(|&value| u64::try_from(value).map_err(negative)).collect()
            }
            other => Err(self.type_error(name, "i64", &other.values)),
        }
    }

    /// A single count.
    pub fn count(&self, name: &str) -> Result<u64, String> {
        match self.counts(name)?[..] {
            [count] => Ok(count),
            ref other => {
                Err(format!("{}: {name} holds {} values, 1 is expected", self.file, other.len()))
            }
        }
    }

    /// An error about this file.
    pub fn wrong(&self, what: &str) -> String {
        format!("{}: {what}", self.file)
    }

    pub fn shape_error(&self, name: &str, found: &[usize], expected: &[usize]) -> String {
        self.wrong(&format!("{name} has the dimensions {found:?}, {expected:?} are expected"))
    }

    fn get(&self, name: &str) -> Result<&Stored, String> {
        self.tensors.get(name).ok_or_else(|| self.wrong(&format!("there is no tensor {name}")))
    }

    fn type_error(&self, name: &str, expected: &str, found: &Values) -> String {
        let found = match found {
            Values::Float(dtype, _) => dtype.to_string(),
            Values::F64(_) => "f64".to_owned(),
            Values::I64(_) => "i64".to_owned(),
            Values::Other(other) => format!("{other:?}"),
        };
        self.wrong(&format!("{name} is stored as {found}, {expected} is expected"))
    }
}

/// The storage type that a manifest names, the short way or the way of NumPy.
pub fn dtype_of(name: &str) -> Result<DType, String> {
    match name {
        "f32" | "float32" => Ok(DType::F32),
        "f16" | "float16" => Ok(DType::F16),
        "bf16" | "bfloat16" => Ok(DType::BF16),
        _ => Err(format!("the storage type {name:?} is unknown; known are f32, f16 and bf16")),
    }
}

/// Little-endian words. Safetensors has checked that the length is a multiple of a word.
fn words<const N: usize, T>(bytes: &[u8], word: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|chunk| word(*chunk)).collect()
}
