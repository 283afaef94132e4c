//! Which files of `shaders` make up the text of each kernel, but for what depends on storage types.

use super::Kernel;

/// A file of `shaders/parts`.
macro_rules! part {
    ($name:literal) => {
        include_str!(concat!("../../shaders/parts/", $name, ".wgsl"))
    };
}

/// A file of `shaders/quads`.
macro_rules! quad_part {
    ($name:literal) => {
        include_str!(concat!("../../shaders/quads/", $name, ".wgsl"))
    };
}

impl Kernel {
    /// The texts that make up the kernel, in order, but for what depends on storage types.
    pub(super) fn parts(self, mask: bool, subgroups: bool) -> Vec<&'static str> {
        const GRADIENT: [&str; 2] = [part!("upstream"), part!("gradient")];
        let line = [part!("tile_params"), part!("tile"), part!("finite"), part!("line"), part!("activation")];
        let side: &[&str] = if mask { &[part!("side_of_mask")] } else { &[part!("value"), part!("side_of_value")] };
        let keep = if mask { part!("keep_mask") } else { part!("keep_none") };
        let [own_lane, fours] = rows(subgroups);
        let tail: &[&str] = match self {
            Self::PartialStats => {
                return vec![
                    part!("tile_params"),
                    part!("tile"),
                    part!("rows_of_sums"),
                    part!("finite"),
                    part!("entry"),
                    own_lane,
                    fours,
                    part!("merge"),
                    part!("merge_stats"),
                    include_str!("../../shaders/partial_stats.wgsl"),
                ];
            }
            Self::CombineStats => {
                return vec![part!("combine"), part!("reduce"), include_str!("../../shaders/combine_stats.wgsl")];
            }
            Self::CombineGradSums => {
                return vec![part!("combine"), part!("reduce"), include_str!("../../shaders/combine_grad_sums.wgsl")];
            }
            Self::FinalizeStats => {
                return vec![
                    part!("finalize"),
                    part!("shares"),
                    part!("finite"),
                    part!("center"),
                    include_str!("../../shaders/finalize_stats.wgsl"),
                ];
            }
            Self::CenterRunning => {
                return vec![
                    part!("finalize"),
                    part!("finite"),
                    part!("center"),
                    include_str!("../../shaders/center_running.wgsl"),
                ];
            }
            Self::FinalizeGrad => {
                return vec![
                    part!("shares"),
                    part!("finite"),
                    part!("center"),
                    include_str!("../../shaders/finalize_grad.wgsl"),
                ];
            }
            Self::Normalize => &[
                part!("rows_of_writes"),
                part!("centering"),
                part!("value"),
                keep,
                include_str!("../../shaders/normalize.wgsl"),
            ],
            Self::NormalizeWords => &[
                part!("rows_of_writes"),
                part!("centering"),
                part!("value"),
                keep,
                if mask { part!("words_together") } else { part!("words_apart") },
                part!("words"),
                include_str!("../../shaders/normalize_words.wgsl"),
            ],
            Self::PartialGradSums => &[
                part!("rows_of_sums"),
                part!("entry"),
                own_lane,
                fours,
                part!("merge"),
                part!("merge_sums"),
                part!("centering"),
                part!("upstream"),
                include_str!("../../shaders/partial_grad_sums.wgsl"),
            ],
            Self::GradInput => {
                &[part!("rows_of_writes"), part!("residual_none"), include_str!("../../shaders/grad_input.wgsl")]
            }
            Self::GradInputAndResidual => {
                &[part!("rows_of_writes"), part!("residual_f32"), include_str!("../../shaders/grad_input.wgsl")]
            }
            Self::GradInputWords => &[
                part!("rows_of_writes"),
                part!("residual_none"),
                part!("words_apart"),
                part!("words"),
                include_str!("../../shaders/grad_input_words.wgsl"),
            ],
            Self::GradInputAndResidualWords => &[
                part!("rows_of_writes"),
                part!("residual_words"),
                part!("words_apart"),
                part!("words"),
                include_str!("../../shaders/grad_input_words.wgsl"),
            ],
        };
        let mut parts = line.to_vec();
        match self {
            Self::Normalize | Self::NormalizeWords => {}
            Self::PartialGradSums => parts.extend(side),
            _ => parts.extend(side.iter().chain(&GRADIENT)),
        }
        parts.extend(tail);
        parts
    }

    /// The texts of the variant that takes four values at a time, but for what depends on storage types.
    pub(super) fn quad_parts(self, mask: bool, four_channels: bool, subgroups: bool) -> Vec<&'static str> {
        let walk = [part!("tile_params"), part!("tile"), quad_part!("finite")];
        let line = [quad_part!("line"), quad_part!("centers"), quad_part!("activation")];
        let side: &[&str] = match mask {
            true => &[quad_part!("side_of_mask"), quad_part!("upstream")],
            false => &[quad_part!("value"), quad_part!("side_of_value"), quad_part!("upstream")],
        };
        let keep = if mask { quad_part!("keep_mask") } else { quad_part!("keep_none") };
        let [own_lane, fours] = rows(subgroups);
        let entries = if four_channels { quad_part!("entries_apart") } else { quad_part!("entries_together") };
        let mut parts = walk.to_vec();
        if self == Self::PartialStats {
            parts.extend([entries, own_lane, fours, part!("merge"), part!("merge_stats"), quad_part!("partial_stats")]);
            return parts;
        }
        parts.extend(line);
        match self {
            Self::Normalize => {
                parts.extend([quad_part!("centering"), quad_part!("value"), keep, quad_part!("normalize")]);
            }
            Self::PartialGradSums => {
                parts.extend(side.iter().chain(&[
                    quad_part!("centering"),
                    entries,
                    own_lane,
                    fours,
                    part!("merge"),
                    part!("merge_sums"),
                ]));
                parts.push(quad_part!("partial_grad_sums"));
            }
            Self::GradInputAndResidual => {
                parts.extend(side.iter().chain(&[quad_part!("residual_kept"), quad_part!("grad_input")]));
            }
            _ => parts.extend(side.iter().chain(&[quad_part!("residual_none"), quad_part!("grad_input")])),
        }
        parts
    }
}

/// How an invocation knows its number, and how four rows merge.
fn rows(subgroups: bool) -> [&'static str; 2] {
    match subgroups {
        true => [part!("own_lane_of_subgroup"), part!("fours_in_subgroups")],
        false => [part!("own_lane"), part!("fours_in_memory")],
    }
}
