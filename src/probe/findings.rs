//! Findings about a driver.

use super::Arithmetic;

/// Behaviour of a GPU's driver, as the probe found it at the opening of the device
/// ([`Device::findings`](crate::Device::findings)).
///
/// A sound driver has no [`defects`](Self::defects).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Findings {
    /// Invocations per subgroup of the probe's kernel. `None` if subgroups are not used. A driver
    /// may compile other kernels for another size, so kernels with subgroups read their own.
    pub subgroup_size: Option<u32>,
    /// Whether the device's own conversion to f16 rounds to the nearest even, which WGSL leaves
    /// open. If not, kernels that write f16 convert by integer arithmetic. `None` if the driver did
    /// not answer, or `native_f16` was not asked about.
    pub rounds_f16: Option<bool>,
    /// Transformations of f32 arithmetic. `None` if the driver did not answer.
    pub arithmetic: Option<Arithmetic>,
    /// Whether backward finds the same values active (above 0) as forward. `None` if the driver did
    /// not answer. If false, let ReLU and leaky ReLU after a residual keep a mask
    /// ([`with_activation_mask`](crate::BatchNormConfig::with_activation_mask)), and apply other
    /// activations outside of the layer.
    pub signs_agree: Option<bool>,
    /// Defects, with their consequences.
    pub defects: Vec<Defect>,
}

/// A fault of a driver. A fast path that depends on the faulty behaviour is switched off. Each
/// variant names its consequence.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Defect {
    /// A question was not answered: its kernel was refused, or the answer did not come in time. What
    /// it proves is not used.
    #[error("no answer to the probe {question}: {message}")]
    NoAnswer {
        /// Name of the question.
        question: &'static str,
        /// wgpu's message, or the error in the answer.
        message: String,
    },
    /// Subgroups vary in size, or are too small. They are not used.
    #[error(
        "subgroups have {smallest} to {largest} invocations, expected one size of 4 at least: they \
         are not used"
    )]
    SubgroupSizes {
        /// The smallest size that an invocation read.
        smallest: u32,
        /// The largest.
        largest: u32,
    },
    /// Numbers counted subgroup by subgroup do not name every invocation of a workgroup once.
    /// Subgroups are not used.
    #[error(
        "no invocation of workgroup {workgroup} is number {missing} by subgroup_id · subgroup_size \
         + subgroup_invocation_id, expected one for each of 0 to 255: subgroups are not used"
    )]
    SubgroupNumbers {
        /// The workgroup.
        workgroup: usize,
        /// The first missing number.
        missing: u32,
    },
    /// An exchange within a subgroup brings the values of another invocation than the neighbour.
    /// Subgroups are not used.
    #[error(
        "invocation {number} gets the values of {found:?} from distance {distance}, expected those \
         of {expected}: subgroups are not used"
    )]
    SubgroupNeighbours {
        /// Number of the invocation.
        number: u32,
        /// Distance of the exchange: 1, 2 or 3.
        distance: u32,
        /// Source of the values that came, one number for each of four components.
        found: [u32; 4],
        /// The expected source.
        expected: u32,
    },
    /// The device's own conversion from f16 changes an f16. It is not used.
    #[error(
        "f16 {half:#06x} is read as f32 {found:#010x}, expected {expected:#010x}: the device's own \
         conversion is not used"
    )]
    Half {
        /// Bits of the f16.
        half: u16,
        /// Bits of the f32 that was read.
        found: u32,
        /// Bits of the f32 of its value.
        expected: u32,
    },
    /// A value that is clearly above 0, or below, was treated as one of the other sign.
    #[error(
        "value {index} is {expected}, but forward makes it {forward} and backward's gradient of it \
         is {backward}"
    )]
    Activation {
        /// Number of the value.
        index: usize,
        /// The value before the activation.
        expected: f32,
        /// y.
        forward: f32,
        /// The gradient for a gradient of 1 for y.
        backward: f32,
    },
    /// Forward and backward disagree about the sign of the activation's input.
    #[error(
        "{differing} of {values} values next to 0 are active in forward and not in backward, or \
         the reverse: let ReLU and leaky ReLU after a residual keep a mask \
         (BatchNormConfig::with_activation_mask), and apply other activations outside of the layer"
    )]
    Signs {
        /// Values on which they disagree.
        differing: usize,
        /// Values that were tried.
        values: usize,
    },
    /// The compiler contracts or reassociates sums through the barrier by which kernels keep the
    /// order of their source.
    #[error(
        "{differing} of {sums} sums are not rounded as the kernels' source says, integer barriers \
         notwithstanding: results may miss their bounds"
    )]
    Barriers {
        /// Sums that differ.
        differing: usize,
        /// Sums that were tried.
        sums: usize,
    },
}
