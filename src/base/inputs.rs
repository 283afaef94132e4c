//! The inputs of a forward call that backward and double backward read again, checked.

use super::Base;
use crate::error::Error;
use crate::request::Inputs;
use crate::saved::SavedCall;
use crate::shape::Shape;
use crate::tensor::Tensors;

/// Inputs that are those of a saved call.
pub(super) struct CheckedInputs<'t> {
    pub x: Tensors<'t>,
    /// Empty where none is given.
    pub residual: Tensors<'t>,
    /// Of x, of all its positions.
    pub shapes: Vec<Shape>,
}

impl Base {
    /// Checks that they are those of the saved call, with the residual where it is needed.
    pub(super) fn check_inputs<'t>(
        &self,
        saved: &SavedCall,
        inputs: &'t Inputs<'_>,
    ) -> Result<CheckedInputs<'t>, Error> {
        let x: Tensors<'t> = inputs.x.iter().collect();
        let shapes = self.check_x(&x)?;
        let residual: Option<Tensors<'t>> =
            inputs.residual.as_ref().map(|list| list.iter().collect());
        self.check_residual(residual.as_deref(), &x, saved.needs_residual())?;
        let residual = residual.unwrap_or_default();
        saved.check(self, &x, &residual, inputs.recomputed)?;
        Ok(CheckedInputs { x, residual, shapes })
    }
}
