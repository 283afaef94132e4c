// Merging over the lanes of a tile, by way of workgroup memory.
//
//     level 1: four lanes each          shuffles in a subgroup, or a store and a barrier
//     level 2: four of those each       barrier
//     level 3: four of those each       one invocation per channel,
//     level 4: the rest, four at most   which writes `partial`
//
// Two barriers and no loop. The order is fixed, whoever merges the first fours
// (parts/merge_fours.wgsl): f32 addition is not associative, and the bits are to be the same with
// subgroups of any size and without. An entry is what a lane holds of a channel; the entries of all
// channels of a workgroup lie side by side, SUMS of them from each lane. Lanes are a power of two
// up to 256.

#import merge_fours

#if FOUR_CHANNELS
const SUMS: u32 = 4u;
#else
const SUMS: u32 = 1u;
#endif

const ENTRIES: u32 = 256u * SUMS;

var<workgroup> entries: array<vec4<f32>, ENTRIES>;

#if WRITES
// What `finish` leaves of a channel for the kernel that goes on to the outputs. Its last value is
// not 0 where these are NaN: no compiler can assume that away.
var<private> kept: vec4<f32>;
#endif

fn hold(own: array<vec4<f32>, SUMS>, at: u32) {
    entries[at] = own[0];
#if FOUR_CHANNELS
    entries[at + 1u] = own[1];
    entries[at + 2u] = own[2];
    entries[at + 3u] = own[3];
#endif
}

fn sum_of_four(v: vec4<f32>) -> f32 {
    return (v.x + v.y) + (v.z + v.w);
}

// An entry, or one of no value.
fn entry_if(is_there: bool, at: u32) -> vec4<f32> {
    var entry = vec4<f32>(0.0);
    if (is_there) {
        entry = entries[at];
    }
    return entry;
}

fn four_if(is_there: bool, at: u32, stride: u32) -> vec4<f32> {
    var entry = vec4<f32>(0.0);
    if (is_there) {
        entry = four(at, stride);
    }
    return entry;
}

// Merges four entries from `first` on with a stride of `step`, or those below `count`.
fn merged_entries(first: u32, step: u32, count: u32) -> vec4<f32> {
    return merged_four(
        entries[first],
        entry_if(count > 1u, first + step),
        entry_if(count > 2u, first + 2u * step),
        entry_if(count > 2u, first + 3u * step),
    );
}

// Merges `count` entries, a power of two up to 16. The merges of four do not depend on each other,
// so a device runs them side by side: in a loop over 16 entries each would wait for the one before.
fn merged(first: u32, step: u32, count: u32) -> vec4<f32> {
    let four = merged_entries(first, step, count);
    if (count <= 4u) {
        return four;
    }
    var third = vec4<f32>(0.0);
    var fourth = vec4<f32>(0.0);
    if (count > 8u) {
        third = merged_entries(first + 8u * step, step, 4u);
        fourth = merged_entries(first + 12u * step, step, 4u);
    }
    return merged_four(four, merged_entries(first + 4u * step, step, 4u), third, fourth);
}

// Merges what the lanes hold and writes what comes of it. Of a channel with one tile that may be
// what `finish` makes of it; for kernels that go on to the outputs that stays in the entries, too,
// those of the workgroup's channels in order.
fn merge_over_lanes(own: array<vec4<f32>, SUMS>, walk: Walk, invocation: u32) {
    let channels = SUMS << params.tiles_per_workgroup_log2;
    let fours = max(params.lanes_per_tile / 4u, 1u);
    let sixteens = max(fours / 4u, 1u);
    let stride = fours * channels;
    let step = sixteens * channels;
    hold_fours(own, walk, stride, channels);
    workgroupBarrier();
    for (var task = invocation; task < step; task += 256u) {
        // Over the first of the entries that are merged, which no other task reads.
        entries[task] = merged_four(
            four(task, stride),
            four_if(fours > 1u, task + step, stride),
            four_if(fours > 2u, task + 2u * step, stride),
            four_if(fours > 2u, task + 3u * step, stride),
        );
    }
    workgroupBarrier();
    let channel = (walk.channel - walk.tile_slot) * SUMS;
    for (var task = invocation; task < channels; task += 256u) {
        if (
            walk.tile - params.first_tile < params.tiles
            && channel + task < params.end_channel * SUMS
        ) {
            let sums = result(merged(task, channels, sixteens));
#if FINISHES
            sums_of_rank = sums;
            finish(channel + task);
#if WRITES
            // Over the first of the entries that this task has merged.
            entries[task] = kept;
#endif
#else
            partial[walk.tile * params.channels + channel + task] = sums;
#endif
        }
    }
}
