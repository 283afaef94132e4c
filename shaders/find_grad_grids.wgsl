// The grid of the gradients of every channel from the largest magnitudes of all ranks, beside that
// of x.
//
// Dispatch: one workgroup per 256 channels, an invocation per channel. `partial_grad_integers` runs
// next.

#import params
#import channel
#import rank_integers
#import grid

@group(0) @binding(3) var<storage, read> grids: array<vec4<u32>>;   // (3, C), as in forward
// (C, 2): of x and of g; then (C): whether a gradient is not finite
@group(0) @binding(4) var<storage, read_write> grad_grids: array<vec4<u32>>;

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
    let largest = ends_of(params.first_rank, params.end_rank, channel).y;
    let made = grid_from(largest | 0x80000000u, largest);
    grad_grids[2u * channel] = grids[channel];
    grad_grids[2u * channel + 1u] = made.grid;
    grad_grids[2u * params.channels + channel] =
        vec4<u32>(u32(!is_finite(largest)), 0u, 0u, 0u);
}
