// The grid of every channel from the ranges of all ranks.
//
// Dispatch: one workgroup per 256 channels, an invocation per channel. `partial_integers` runs
// next.

#import params
#import channel
#import rank_integers
#import grid

// (3, C): the grids; the pivots, with the place of the mean; the place of the inverse deviation
@group(0) @binding(3) var<storage, read_write> grids: array<vec4<u32>>;

// The bits of the f32 that has a place in the order of all f32.
fn of_key(key: u32) -> u32 {
    if ((key >> 31u) == 1u) {
        return key ^ 0x80000000u;
    }
    return ~key;
}

// It reads 16 bytes per channel and rank, so its time is that of a dispatch.
@compute @workgroup_size(256)
fn main(
    @builtin(local_invocation_index) invocation: u32,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
) {
    let channel = channel_of(invocation, workgroup, workgroups);
    if (channel >= params.channels) {
        return;
    }
    var made = no_grid(0u);
    if (params.count > 0u) {
        let ends = ends_of(params.first_rank, params.end_rank, channel);
        made = grid_from(of_key(~ends.x), of_key(ends.y));
    }
    grids[channel] = made.grid;
    grids[params.channels + channel] = vec4<u32>(made.pivot, 0u, 0u, 0u);
}
