//! The lengths of padded samples, checked.

use super::Base;
use crate::error::{ArgumentError, Error, LengthsError};
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
            check_lengths(rank, &shape, lengths).map_err(ArgumentError::from)?;
            Ok(shape.with_lengths(lengths))
        });
        padded.collect()
    }
}

/// Checks the lengths of the samples of one rank.
fn check_lengths(rank: usize, shape: &Shape, lengths: &[u32]) -> Result<(), LengthsError> {
    if shape.dims().len() < 3 {
        return Err(LengthsError::NoSpatialAxis { rank, dims: shape.dims().to_vec() });
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
