//! Identifiers that the sources no longer use, and what to say instead: the word by which the field
//! calls the thing, so that who searches for it finds it.

use std::path::Path;

use super::source::{code_only, tokens};

/// The retired identifiers, whole and as they are written: (old, say instead).
///
/// A word of plain English, in lower case but for its first letter, is retired from code and from
/// the names of files; prose may use it. Any other identifier is retired from comments and strings
/// too.
pub const RETIRED: &[(&str, &str)] = &[
    // The host (CPU), statistics and plans.
    ("ask_ahead", "prefetch_ahead"),
    ("asks_ahead", "prefetches"),
    ("past_caches", "non_temporal"),
    ("past_caches_block", "non_temporal_block"),
    ("GradientLine", "GradCoefficients"),
    ("LinePass", "AffinePass"),
    ("gradient_lines", "grad_coefficients"),
    ("Numbers", "ChannelParams"),
    ("Lines", "LaneParams"),
    ("Stores", "NonTemporalStores"),
    ("LINE_BYTES", "CACHE_LINE_BYTES"),
    ("from_numbers", "from_components"),
    // Shaders and what runs them.
    ("row_values", "values_per_lane"),
    ("per_row", "values_per_lane"),
    ("run_rows", "lanes_per_run"),
    ("run_log2", "lanes_per_run_log2"),
    ("columns_log2", "tiles_per_workgroup_log2"),
    ("SUMMED_PER_ROW", "SUMMED_PER_LANE"),
    ("WRITTEN_PER_ROW", "WRITTEN_PER_LANE"),
    ("merge_over_rows", "merge_over_lanes"),
    ("sum_over_rows", "sum_over_lanes"),
    ("is_lost", "not_finite"),
    ("sides_agree", "signs_agree"),
    ("check_sides", "check_signs"),
    ("Sides", "Signs"),
    ("text_of", "source_of"),
    ("Shares", "RankWeights"),
    ("spare", "dummy"),
    ("Life", "CacheToken"),
    ("Following", "RunningUpdate"),
    ("follow_batch", "update_running"),
    ("g_follows_x", "same_layout"),
    ("keep_out", "retain"),
    ("set_comes_back", "set_recycled"),
    ("g_apart", "g_value_stride"),
    ("tell_written", "notify_written"),
    // Layers and their exchanges.
    ("coordinator", "exchange"),
    ("merges_on_the_way", "supports_all_reduce"),
    ("all_merge", "all_reduce"),
    ("merging_groups", "all_reduce_groups"),
    ("UNTOLD", "UNANNOUNCED"),
    ("ranks_to_tell", "ranks_to_announce"),
    ("is_told", "is_notified"),
    ("tell_all", "notify_all"),
    ("NotTogether", "NotJoint"),
    ("check_together", "check_joint"),
    ("is_together", "is_on_this_host"),
    ("check_apart", "check_disjoint"),
    ("check_parameters_apart", "check_disjoint_from_parameters"),
];

/// Every retired identifier of one file, in its path below the folder and in its text.
pub fn retired(path: &Path, text: &str) -> Vec<String> {
    let everything = tokens(text);
    let code = tokens(&code_only(text));
    let names = tokens(&path.display().to_string());
    let mut found = Vec::new();
    for (old, instead) in RETIRED {
        let is_plain = old.chars().skip(1).all(|c| c.is_ascii_lowercase());
        let searched = if is_plain { &code } else { &everything };
        let hits = searched.iter().filter(|(_, token)| token == old);
        found.extend(hits.map(|(line, _)| format!("line {line}: `{old}`, say `{instead}`")));
        if names.iter().any(|(_, token)| token == old) {
            found.push(format!("the path: `{old}`, say `{instead}`"));
        }
    }
    found
}
