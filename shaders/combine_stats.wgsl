// Local statistics of a rank from those of its tiles: pivot, Σ(x − pivot), Σ(x − pivot)², and the
// flag.
//
// Dispatch: one workgroup per 256/lanes_per_channel channels. The host merges the ranks next, or
// `finalize_stats` where they are on one device. Of a single rank there, that takes the tiles
// itself.

#import tile_stats

// (C) of (pivot, Σ(x − pivot), Σ(x − pivot)², flag)
@group(0) @binding(2) var<storage, read_write> local: array<vec4<f32>>;

// It reads 16 bytes per tile of up to 16,384 values, twice, so its time is that of a dispatch.
@compute @workgroup_size(256)
fn main(
    @builtin(local_invocation_index) invocation: u32,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
) {
    let place = locate(invocation, workgroup.x + workgroup.y * workgroups.x);
    let stats = stats_of_tiles(place, params.values);
    if (place.lane == 0u && place.tiles > 0u) {
        local[place.channel] = stats;
    }
}
