// Merging over the rows of a tile, whose results become those of the tile: sixteen by sixteen, then the rest.
//
// An entry is what a row holds of a channel; those of all channels of a workgroup lie side by side, SUMS of them from each
// invocation. Two barriers and no barrier in a loop. Rows are a power of two up to 256.

var<workgroup> entries: array<vec4<f32>, ENTRIES>;

const ENTRIES: u32 = 256u * SUMS;

// Channels of a workgroup, side by side.
fn channels_of_group() -> u32 {
    return SUMS << params.columns_log2;
}

// Merges what the invocations hold and writes what comes of it.
fn merge_over_rows(own: array<vec4<f32>, SUMS>, walk: Walk, lane: u32) {
    let side_by_side = channels_of_group();
    hold(own, walk.row * side_by_side + walk.column * SUMS);
    workgroupBarrier();
    let group_rows = min(params.rows, 16u);
    // Groups of rows: the rows of one lie `groups` apart, so that neighbouring invocations read neighbouring entries.
    let groups = params.rows / group_rows;
    for (var task = lane; task < groups * side_by_side; task += 256u) {
        // Over the first of the entries that are merged, which no other task reads.
        entries[task] = merged(task, groups * side_by_side, group_rows);
    }
    workgroupBarrier();
    let channel = (walk.channel - walk.column) * SUMS;
    for (var task = lane; task < side_by_side; task += 256u) {
        if (walk.tile - params.first_tile < params.tiles && channel + task < params.end_channel * SUMS) {
            partial[walk.tile * params.channels + channel + task] = result(merged(task, side_by_side, groups));
        }
    }
}
