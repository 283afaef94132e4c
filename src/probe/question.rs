//! The questions: a kernel each, with its inputs.

use bytemuck::{Pod, Zeroable};

use super::{arithmetic, cases, halves, rounding, subgroups};
use crate::fast_paths::FastPaths;
use crate::shaders::expand;

/// A question that a driver answers by running a small kernel. Every kernel has the entry point
/// `main` of 256 invocations and one bind group: [`Params`] at binding 0, inputs to read from 1 on,
/// the answer to write behind them. Some use fewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Question {
    /// Are subgroups whole, of one size, and neighbours where their numbers say?
    Subgroups,
    /// Does the device's own conversion keep every f16?
    NativeF16,
    /// Does the device's own conversion to f16 round to the nearest even?
    Rounding,
    /// Which sign have values next to 0, in forward?
    Forward,
    /// And in backward?
    Backward,
    /// How is f32 arithmetic transformed?
    Arithmetic,
}

/// Buffers that a question's kernel may read.
pub const INPUTS: usize = 4;

/// Parameters of every question's kernel.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Params {
    channels: u32,
    has_weight: u32,
    has_bias: u32,
    values: u32,
    slope: f32,
    mean_dy: f32,
    projection: f32,
}

impl Params {
    /// Those of all questions.
    pub const ALL: Self = Self {
        channels: cases::CHANNELS as u32,
        has_weight: 1,
        has_bias: 1,
        values: cases::VALUES_PER_CHANNEL as u32,
        slope: cases::SLOPE,
        mean_dy: 0.25,
        projection: 0.125,
    };
}

impl Question {
    /// Every question.
    pub const ALL: [Self; 6] = [
        Self::Subgroups,
        Self::NativeF16,
        Self::Rounding,
        Self::Forward,
        Self::Backward,
        Self::Arithmetic,
    ];

    /// Name of the question.
    pub fn name(self) -> &'static str {
        match self {
            Self::Subgroups => "subgroups",
            Self::NativeF16 => "native_f16",
            Self::Rounding => "rounding",
            Self::Forward => "forward",
            Self::Backward => "backward",
            Self::Arithmetic => "arithmetic",
        }
    }

    /// Whether it is asked of a device with these fast paths. A path that is not taken needs no
    /// proof.
    pub fn is_asked(self, paths: FastPaths) -> bool {
        match self {
            Self::Subgroups => paths.subgroups,
            Self::NativeF16 | Self::Rounding => paths.native_f16,
            Self::Forward | Self::Backward | Self::Arithmetic => true,
        }
    }

    /// The WGSL source of its kernel. Both passes compute the activation's input by the source of
    /// the layer's own kernels.
    pub fn source(self) -> String {
        const PARAMS: &str = include_str!("../../shaders/probe/params.wgsl");
        const INPUTS: &str = include_str!("../../shaders/probe/inputs.wgsl");
        // Choices between integers that GLSL of any version has.
        let flags = ["ACTIVATION", "RESIDUAL", "BATCH_STATISTICS", "GLSL_430"];
        let with_parts = |files: &[&str]| expand(&files.join("\n"), &flags, &[]);
        match self {
            Self::Subgroups => include_str!("../../shaders/probe/subgroups.wgsl").to_owned(),
            Self::NativeF16 => include_str!("../../shaders/probe/native_f16.wgsl").to_owned(),
            Self::Rounding => include_str!("../../shaders/probe/rounding.wgsl").to_owned(),
            Self::Forward => {
                with_parts(&[PARAMS, INPUTS, include_str!("../../shaders/probe/forward.wgsl")])
            }
            Self::Backward => {
                with_parts(&[PARAMS, INPUTS, include_str!("../../shaders/probe/backward.wgsl")])
            }
            Self::Arithmetic => {
                with_parts(&[PARAMS, include_str!("../../shaders/probe/arithmetic.wgsl")])
            }
        }
    }

    /// Workgroups of its one dispatch.
    pub fn workgroups(self) -> u32 {
        match self {
            Self::Subgroups => subgroups::WORKGROUPS as u32,
            Self::NativeF16 | Self::Rounding => halves::WORKGROUPS as u32,
            Self::Forward | Self::Backward | Self::Arithmetic => 1,
        }
    }

    /// Contents of the buffers that its kernel may read; a few words of those that it does not.
    pub fn inputs(self) -> [Vec<u32>; INPUTS] {
        let unused = || vec![0; 4];
        match self {
            Self::Subgroups => [unused(), unused(), unused(), unused()],
            Self::NativeF16 => [halves::words(), halves::words(), unused(), unused()],
            Self::Rounding => {
                let [exact, halfway] = rounding::inputs();
                [exact, halfway, unused(), unused()]
            }
            Self::Forward | Self::Backward => cases::inputs(),
            Self::Arithmetic => {
                let [products, values] = arithmetic::inputs();
                [products, values, unused(), unused()]
            }
        }
    }

    /// Words that its kernel writes.
    pub fn answer_words(self) -> usize {
        match self {
            Self::Subgroups => subgroups::ANSWER_WORDS,
            Self::NativeF16 => halves::ANSWER_WORDS,
            Self::Rounding => rounding::ANSWER_WORDS,
            Self::Forward => cases::VALUES,
            Self::Backward => 2 * cases::VALUES,
            Self::Arithmetic => arithmetic::ANSWER_WORDS,
        }
    }
}
