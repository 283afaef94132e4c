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

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Floats(values) => {
                values.as_flattened().iter().for_each(|value| out.extend(value.to_le_bytes()));
            }
            Self::Integers(values) => {
                values.as_flattened().iter().for_each(|value| out.extend(value.to_le_bytes()));
            }
        }
    }
}
