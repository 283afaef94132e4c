//! Owns the list of formulas that the oracle knows: the definition, and what the checks must catch.

use syncbn::low_level::Epilogue;

use crate::compare::Part;

/// The definition, or one deviation from it that has been seen in an implementation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Formula {
    Definition,
    /// Normalizes with m2/(N - 1).
    UnbiasedNormalization,
    /// Averages the means of the ranks without their counts.
    UnweightedMeans,
    /// Each rank normalizes with its own batch.
    NotSynchronized,
    /// Keeps the mean in one f32.
    MeanInOneFloat,
    /// The biased variance enters the running variance.
    BiasedRunning,
    /// Takes the weight of the new batch for that of the old value.
    SwappedMomentum,
    /// Forgets that the statistics depend on the input.
    ConstantStatistics,
    /// Gives zeros for all gradients.
    ZeroGradients,
    /// Adds the residual to what the activation leaves.
    ActivationFirst,
    /// Applies no activation.
    NoActivation,
    /// Takes the sign at the activation from the input without subtracting its mean.
    SideOfUnshifted,
    /// Forgets the slope in backward.
    SlopeForgotten,
    /// Scales the gradient of the residual by the weight.
    WeightedResidual,
}

impl Formula {
    pub const WRONG_FORWARD: [Self; 5] = [
        Self::UnbiasedNormalization,
        Self::UnweightedMeans,
        Self::NotSynchronized,
        Self::BiasedRunning,
        Self::SwappedMomentum,
    ];
    pub const WRONG_BACKWARD: [Self; 2] = [Self::ConstantStatistics, Self::ZeroGradients];

    /// What is wrong about an epilogue alone, with the half that shows it.
    pub fn wrong_epilogues(epilogue: Epilogue) -> Vec<(Self, Part)> {
        let activates = epilogue.activates();
        let adds = epilogue.adds_residual();
        let all = [
            (Self::NoActivation, Part::Forward, activates),
            (Self::ActivationFirst, Part::Forward, activates && adds),
            (Self::SideOfUnshifted, Part::Backward, activates),
            (Self::SlopeForgotten, Part::Backward, activates),
            (Self::WeightedResidual, Part::Backward, adds),
        ];
        all.into_iter()
            .filter(|(_, _, shows)| *shows)
            .map(|(formula, part, _)| (formula, part))
            .collect()
    }
}
