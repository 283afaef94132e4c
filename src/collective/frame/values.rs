//! The values of a node.

/// The values of a node, two per channel.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// Statistics, gradient sums, ranges, a program's values.
    Floats(Vec<[f64; 2]>),
    /// Sums of integers.
    Integers(Vec<[i128; 2]>),
}

impl Values {
    /// Channels, or pairs of values.
    pub fn len(&self) -> usize {
        match self {
            Self::Floats(values) => values.len(),
            Self::Integers(values) => values.len(),
        }
    }

    /// Whether there is no channel.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes in a frame.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Floats(values) => size_of_val(values.as_slice()),
            Self::Integers(values) => size_of_val(values.as_slice()),
        }
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Floats(values) => put(out, values, f64::to_le_bytes),
            Self::Integers(values) => put(out, values, i128::to_le_bytes),
        }
    }
}

/// One loop over memory that is there, which compiles to a copy where the processor has this order
/// of bytes.
fn put<T: Copy, const N: usize>(
    out: &mut Vec<u8>,
    values: &[[T; 2]],
    bytes: impl Fn(T) -> [u8; N],
) {
    let values = values.as_flattened();
    let start = out.len();
    out.resize(start + values.len() * N, 0);
    let places = out[start..].as_chunks_mut().0.iter_mut();
    places.zip(values).for_each(|(place, value)| *place = bytes(*value));
}
