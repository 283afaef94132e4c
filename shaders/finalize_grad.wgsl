// Merges the gradient sums of the ranks to the coefficients of a rank's grad_input, and to the
// gradients of its parameters.
//
// Dispatch: one workgroup per 256 channels, an invocation per channel, for every rank. With the
// tiles of a single rank it has the dispatch of `combine_grad_sums`, and the first lane of a
// channel goes on. `grad_input` runs next.

#import params
#if OF_TILES
#import tile_sums
#else
#import channel
#endif
#import rank_gradients

@group(0) @binding(3) var<storage, read> center: array<CenterBits>;   // (C), as in forward
@group(0) @binding(4) var<storage, read_write> grad_centering: array<GradCenterBits>;   // (C)
// (C), bits of f32, or a dummy
@group(0) @binding(5) var<storage, read_write> grad_weight: array<u32>;
// (C), bits of f32, or a dummy
@group(0) @binding(6) var<storage, read_write> grad_bias: array<u32>;

// As forward has left it.
fn center_at(channel: u32) -> CenterBits {
    return center[channel];
}

// It reads 16 bytes per channel and rank or tile, so its time is that of a dispatch.
@compute @workgroup_size(256)
fn main(
    @builtin(local_invocation_index) invocation: u32,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
) {
#if OF_TILES
    let place = locate(invocation, workgroup.x + workgroup.y * workgroups.x);
    sums_of_rank = sums_of_tiles(place);
    if (place.lane != 0u || place.tiles == 0u) {
        return;
    }
    let channel = place.channel;
#else
    let channel = channel_of(invocation, workgroup, workgroups);
    if (channel >= params.channels) {
        return;
    }
#endif
    finish(channel);
}
