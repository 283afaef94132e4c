//! A state as the bytes of a broadcast.
//!
//! Independent of the file format, so ranks with different features agree.

use super::{Source, StateDict};
use crate::error::StateError;

/// Vectors of a state.
const VECTORS: usize = 4;
/// The bit of the counter, after the bits of the vectors.
const COUNTER: u8 = 1 << VECTORS;

impl StateDict {
    /// One byte with a bit per part that is there (weight, bias, running mean, running variance,
    /// counter, from the lowest on). Then each vector as its length (u64) and its values (f32).
    /// Then the counter (u64). All is little-endian.
    pub(crate) fn to_message(&self) -> Vec<u8> {
        let vectors = [&self.weight, &self.bias, &self.running_mean, &self.running_var];
        let mut present = if self.num_batches_tracked.is_some() { COUNTER } else { 0 };
        for (bit, vector) in vectors.iter().enumerate() {
            present |= u8::from(vector.is_some()) << bit;
        }
        let mut bytes = vec![present];
        for vector in vectors.into_iter().flatten() {
            bytes.extend((vector.len() as u64).to_le_bytes());
            bytes.extend(vector.iter().flat_map(|value| value.to_le_bytes()));
        }
        bytes.extend(self.num_batches_tracked.iter().flat_map(|count| count.to_le_bytes()));
        bytes
    }

    /// Reads the bytes of [`to_message`](Self::to_message).
    ///
    /// # Errors
    /// [`StateError::Message`] for other bytes.
    pub(crate) fn from_message(bytes: &[u8]) -> Result<Self, StateError> {
        read(bytes).ok_or(StateError::Message { found_bytes: bytes.len() })
    }
}

fn read(bytes: &[u8]) -> Option<StateDict> {
    let (&present, mut rest) = bytes.split_first()?;
    let mut vectors: [Option<Vec<f32>>; VECTORS] = Default::default();
    for (bit, vector) in vectors.iter_mut().enumerate() {
        if present & 1 << bit != 0 {
            *vector = Some(take_vector(&mut rest)?);
        }
    }
    let counter = if present & COUNTER == 0 { None } else { Some(take_u64(&mut rest)?) };
    let is_whole = rest.is_empty() && present < COUNTER << 1;
    let [weight, bias, running_mean, running_var] = vectors;
    let num_batches_tracked = counter;
    let source = Source::default();
    let state = StateDict { weight, bias, running_mean, running_var, num_batches_tracked, source };
    is_whole.then_some(state)
}

fn take_u64(rest: &mut &[u8]) -> Option<u64> {
    let (number, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(u64::from_le_bytes(*number))
}

fn take_vector(rest: &mut &[u8]) -> Option<Vec<f32>> {
    let len_bytes = usize::try_from(take_u64(rest)?).ok()?.checked_mul(4)?;
    let (values, after) = rest.split_at_checked(len_bytes)?;
    *rest = after;
    Some(values.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// States with and without each part.
    fn states() -> impl Iterator<Item = StateDict> {
        let vector = |is_there: bool, first: f32| is_there.then(|| vec![first, -0.0, f32::NAN]);
        (0..32u32).map(move |bits| StateDict {
            weight: vector(bits & 1 != 0, 1.0),
            bias: vector(bits & 2 != 0, 2.0),
            running_mean: vector(bits & 4 != 0, f32::INFINITY),
            running_var: if bits & 8 != 0 { Some(Vec::new()) } else { None },
            num_batches_tracked: (bits & 16 != 0).then_some(u64::MAX),
            source: Source::default(),
        })
    }

    #[test]
    fn a_state_comes_back_from_its_message_bit_for_bit() {
        for state in states() {
            let message = state.to_message();
            let back = StateDict::from_message(&message).expect("a state");
            // NaN is unequal to itself: bytes are compared.
            assert_eq!(back.to_message(), message, "{state:?}");
            assert_eq!(back.weight.is_some(), state.weight.is_some());
            assert_eq!(back.num_batches_tracked, state.num_batches_tracked);
        }
    }

    #[test]
    fn a_message_that_is_cut_or_longer_or_has_an_unknown_bit_is_refused() {
        for state in states() {
            let message = state.to_message();
            for end in 0..message.len() {
                let error = StateDict::from_message(&message[..end]);
                assert_eq!(error, Err(StateError::Message { found_bytes: end }), "{state:?}");
            }
            let longer = [message.as_slice(), &[0]].concat();
            assert!(StateDict::from_message(&longer).is_err(), "{state:?}");
            let unknown = [&[message[0] | 0x20], &message[1..]].concat();
            assert!(StateDict::from_message(&unknown).is_err(), "{state:?}");
        }
        let endless = [[1].as_slice(), &u64::MAX.to_le_bytes()].concat();
        assert!(StateDict::from_message(&endless).is_err());
    }
}
