// Merges the statistics of the ranks to the centering of every channel, and updates the running
// statistics.
//
// Dispatch: one workgroup per 256 channels, an invocation per channel. With the tiles of a single
// rank it has the dispatch of `combine_stats`, and the first lane of a channel goes on. `normalize`
// runs next. `mean` and `inv_std` are for applications. If the running statistics are vectors of
// the application, they replace both: the portable limit is eight buffers.

#import params
#if OF_TILES
#import tile_stats
#else
#import channel
#endif
#import running
#import rank_stats

#if RUNNING_VECTORS
@group(0) @binding(3) var<storage, read> running_mean: array<u32>;             // (C), bits of f32
@group(0) @binding(4) var<storage, read> running_variance: array<u32>;         // (C), bits of f32
@group(0) @binding(5) var<storage, read_write> centering: array<CenterBits>;   // (C)
@group(0) @binding(6) var<storage, read_write> next_mean: array<u32>;          // (C), bits of f32
@group(0) @binding(7) var<storage, read_write> next_variance: array<u32>;      // (C), bits of f32
#else
@group(0) @binding(3) var<storage, read_write> running: array<Running>;        // (C)
@group(0) @binding(4) var<storage, read_write> centering: array<CenterBits>;   // (C)
@group(0) @binding(5) var<storage, read_write> mean: array<u32>;               // (C), bits of f32
@group(0) @binding(6) var<storage, read_write> inv_std: array<u32>;            // (C), bits of f32
#endif

// It reads 16 bytes per channel and rank, or twice 16 bytes per tile, so its time is that of a
// dispatch.
@compute @workgroup_size(256)
fn main(
    @builtin(local_invocation_index) invocation: u32,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
) {
#if OF_TILES
    let place = locate(invocation, workgroup.x + workgroup.y * workgroups.x);
    sums_of_rank = stats_of_tiles(place, params.count);
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
