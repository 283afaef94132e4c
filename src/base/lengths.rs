//! The lengths of padded samples, checked.

use super::Base;
use crate::error::{ArgumentError, Error, LengthsError, position};
use crate::shape::Shape;
use crate::tensor::Tensor;

impl Base {
    /// Checks x and the lengths of its samples, and reads its shapes with what counts of them.
    pub(super) fn check_padded_x(
        &self,
        x: &[&Tensor],
        lengths: Option<&[Vec<u32>]>,
    ) -> Result<Vec<Shape>, Error> {
        let shapes = self.check_x(x)?;
        let Some(lengths) = lengths else { return Ok(shapes) };
        if lengths.len() != x.len() {
            let found = lengths.len();
            return Err(
                ArgumentError::from(LengthsError::Lists { found, expected: x.len() }).into()
            );
        }
        let padded = shapes.into_iter().zip(lengths).enumerate().map(|(rank, (shape, lengths))| {
            check_lengths(position(rank, x.len()), &shape, lengths).map_err(ArgumentError::from)?;
            Ok(shape.with_lengths(lengths))
        });
        padded.collect()
    }
}

/// Checks the lengths of the samples of one rank.
fn check_lengths(rank: Option<usize>, shape: &Shape, lengths: &[u32]) -> Result<(), LengthsError> {
    if shape.dims().len() < 3 {
        return Err(LengthsError::NoSpatialAxis { rank, dims: shape.dims().to_vec() });
    }
    let positions = shape.spatial_len();
    if u32::try_from(positions).is_err() {
        let found = positions;
        let allowed = u32::MAX;
        return Err(LengthsError::TooManyPositions { rank, found, allowed });
    }
    let found = lengths.len();
    let expected = shape.batch();
    if found != expected {
        return Err(LengthsError::Count { rank, found, expected });
    }
    let allowed = shape.time();
    match lengths.iter().position(|&length| length as usize > allowed) {
        None => Ok(()),
        Some(sample) => {
            let found = lengths[sample];
            Err(LengthsError::TooLong { rank, sample, found, allowed })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Layout;

    #[test]
    fn more_positions_than_a_length_can_count_are_refused() {
        let shape = Shape::new(&[2, 1, 65_536, 65_537], Layout::ChannelsFirst).unwrap();
        let found = 65_536 * 65_537;
        let allowed = u32::MAX;
        let expected = LengthsError::TooManyPositions { rank: Some(3), found, allowed };
        assert_eq!(check_lengths(Some(3), &shape, &[65_536, 1]), Err(expected));
        let shape = Shape::new(&[2, 1, 65_535, 65_537], Layout::ChannelsFirst).unwrap();
        assert_eq!(check_lengths(Some(3), &shape, &[65_535, 1]), Ok(()));
    }
}
