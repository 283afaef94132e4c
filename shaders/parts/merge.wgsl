// Merging over the rows of a tile, whose results become those of the tile: four by four, four by four of those, then the
// rest at once, in this order whoever merges the first fours (`hold_fours`, `four`), so that the bits are the same.
//
// An entry is what a row holds of a channel; those of all channels of a workgroup lie side by side, SUMS of them from each
// invocation. Two barriers and no barrier in a loop. Rows are a power of two up to 256.

var<workgroup> entries: array<vec4<f32>, ENTRIES>;

const ENTRIES: u32 = 256u * SUMS;

fn sum_of_four(v: vec4<f32>) -> f32 {
    return (v.x + v.y) + (v.z + v.w);
}

// Channels of a workgroup, side by side.
fn channels_of_group() -> u32 {
    return SUMS << params.columns_log2;
}

// An entry, or one of no value.
fn entry_if(is_there: bool, at: u32) -> vec4<f32> {
    var entry = vec4<f32>(0.0);
    if (is_there) {
        entry = entries[at];
    }
    return entry;
}

fn four_if(is_there: bool, at: u32, apart: u32) -> vec4<f32> {
    var entry = vec4<f32>(0.0);
    if (is_there) {
        entry = four(at, apart);
    }
    return entry;
}

// Merges what the invocations hold and writes what comes of it.
fn merge_over_rows(own: array<vec4<f32>, SUMS>, walk: Walk, lane: u32) {
    let side_by_side = channels_of_group();
    let fours = max(params.rows / 4u, 1u);
    let sixteens = max(fours / 4u, 1u);
    let apart = fours * side_by_side;
    let step = sixteens * side_by_side;
    hold_fours(own, walk, apart, side_by_side);
    workgroupBarrier();
    for (var task = lane; task < step; task += 256u) {
        // Over the first of the entries that are merged, which no other task reads.
        entries[task] = merged_four(
            four(task, apart),
            four_if(fours > 1u, task + step, apart),
            four_if(fours > 2u, task + 2u * step, apart),
            four_if(fours > 2u, task + 3u * step, apart),
        );
    }
    workgroupBarrier();
    let channel = (walk.channel - walk.column) * SUMS;
    for (var task = lane; task < side_by_side; task += 256u) {
        if (walk.tile - params.first_tile < params.tiles && channel + task < params.end_channel * SUMS) {
            partial[walk.tile * params.channels + channel + task] = result(merged(task, side_by_side, sixteens));
        }
    }
}
