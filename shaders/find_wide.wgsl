// The grids of the channels with far outliers, from the sums of integers of all ranks; of other
// channels none.
//
// A mark says whether one of 256 channels has a grid: `partial_integers` returns at once where none
// has.
//
// Dispatch: one workgroup per 256 channels, an invocation per channel. `partial_integers` runs
// next, twice.

#import params
#import channel
#import rank_integers
#import deviations

@group(0) @binding(3) var<storage, read> grids: array<vec4<u32>>;   // (3, C)
@group(0) @binding(4) var<storage, read_write> wide_grids: array<vec4<u32>>;   // (C)

var<workgroup> marks: array<u32, 256>;

// 16 marks from one on with a stride.
fn marks_from(first: u32, stride: u32) -> u32 {
    var all = 0u;
    for (var i = 0u; i < 16u; i++) {
        all |= marks[first + i * stride];
    }
    return all;
}

// It reads 32 bytes per channel and rank, so its time is that of a dispatch.
@compute @workgroup_size(256)
fn main(
    @builtin(local_invocation_index) invocation: u32,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
) {
    let channel = channel_of(invocation, workgroup, workgroups);
    var grid = vec4<u32>(0u, 0u, 0x3f800000u, 0u);
    var is_wide = false;
    if (channel < params.channels) {
        let own = grids[channel];
        if (own.x != 0u) {
            let sums =
                sums_of(params.first_rank, params.end_rank, INTEGERS, channel, params.count);
            is_wide = has_outliers(sums.s, sums.product, params.count);
        }
        if (is_wide) {
            grid = own;
        }
    }
    marks[invocation] = u32(is_wide);
    workgroupBarrier();
    // In place: each of the first 16 invocations reads entries that no other one reads.
    if (invocation < 16u) {
        marks[invocation] = marks_from(invocation, 16u);
    }
    workgroupBarrier();
    if (channel < params.channels) {
        grid.w = marks_from(0u, 1u);
        wide_grids[channel] = grid;
    }
}
