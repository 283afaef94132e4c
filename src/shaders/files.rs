//! The WGSL files.

/// Files of `shaders/parts` by their names.
macro_rules! parts {
    ($($name:literal)*) => {
        /// Every file of `shaders/parts` with its name.
        pub(super) const PARTS: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../shaders/parts/", $name, ".wgsl")))),*];
    };
}

parts! {
    "accumulated" "activation" "addresses" "affine" "center" "center_bits" "centering" "channel"
    "channel_coefficients" "choose" "choose_element" "combine" "covering" "curve_elu"
    "curve_exponential" "curve_gelu" "curve_gelu_tanh" "curve_hardswish" "curve_relu6"
    "curve_sigmoid" "curve_silu" "curves" "decode_f16" "deviations" "double" "double_coefficients"
    "double_gradient" "double_ratio" "double_sums" "double_terms" "element" "encode" "ends"
    "entries" "exact_grad_sums" "exact_moments" "exact_running" "finish_grad" "finish_stats"
    "finite" "flat" "four" "grad_sums" "gradient" "grid" "input_gradient" "integer_sums" "integers"
    "inverse_root" "lane_stats" "lanes" "load" "long" "marks" "mask_by_address" "mask_by_invocation"
    "merge" "merge_fours" "merge_stats" "merge_sums" "merge_tile" "merge_words" "packed" "padding"
    "pivot" "rank_grad_sums" "rank_gradients" "rank_integers" "rank_stats" "rank_weights" "reduce"
    "running" "running_update" "runs" "settled" "settled_element" "store" "strides" "tail" "takes"
    "tile" "tile_stats" "tile_sums" "transpose" "upstream" "wide" "wide_digits" "words"
    "write_grad_input" "write_y"
}

/// A file of `shaders/parts`.
pub(super) fn part(name: &str) -> Option<&'static str> {
    PARTS.iter().find(|(known, _)| *known == name).map(|(_, source)| *source)
}

/// A kernel's own file.
macro_rules! kernel {
    ($name:literal) => {
        include_str!(concat!("../../shaders/", $name, ".wgsl"))
    };
}

pub(super) const PARTIAL_STATS: &str = kernel!("partial_stats");
pub(super) const COMBINE_STATS: &str = kernel!("combine_stats");
pub(super) const NORMALIZE: &str = kernel!("normalize");
pub(super) const NORMALIZE_FLAT: &str = kernel!("normalize_flat");
pub(super) const NORMALIZE_WORDS: &str = kernel!("normalize_words");
pub(super) const PARTIAL_GRAD_SUMS: &str = kernel!("partial_grad_sums");
pub(super) const COMBINE_GRAD_SUMS: &str = kernel!("combine_grad_sums");
pub(super) const GRAD_INPUT: &str = kernel!("grad_input");
pub(super) const GRAD_INPUT_FLAT: &str = kernel!("grad_input_flat");
pub(super) const GRAD_INPUT_WORDS: &str = kernel!("grad_input_words");
pub(super) const PARTIAL_INTEGERS: &str = kernel!("partial_integers");
pub(super) const PARTIAL_GRAD_INTEGERS: &str = kernel!("partial_grad_integers");
pub(super) const COMBINE_INTEGERS: &str = kernel!("combine_integers");
pub(super) const PARTIAL_DOUBLE_SUMS: &str = kernel!("partial_double_sums");
pub(super) const DOUBLE_INPUT: &str = kernel!("double_input");
pub(super) const DOUBLE_INPUT_WORDS: &str = kernel!("double_input_words");
pub(super) const FINALIZE_STATS: &str = kernel!("finalize_stats");
pub(super) const FIND_GRIDS: &str = kernel!("find_grids");
pub(super) const FIND_WIDE: &str = kernel!("find_wide");
pub(super) const FINALIZE_INTEGERS: &str = kernel!("finalize_integers");
pub(super) const FIND_GRAD_GRIDS: &str = kernel!("find_grad_grids");
pub(super) const FINALIZE_GRAD_INTEGERS: &str = kernel!("finalize_grad_integers");
pub(super) const CENTER_RUNNING: &str = kernel!("center_running");
pub(super) const FINALIZE_GRAD: &str = kernel!("finalize_grad");
pub(super) const GATHER_COTANGENTS: &str = kernel!("gather_cotangents");
pub(super) const FINALIZE_DOUBLE: &str = kernel!("finalize_double");
pub(super) const ACCUMULATE: &str = kernel!("accumulate");
