// Local gradient sums of a rank from those of its tiles: Σg, Σ g·(x − pivot), and the flags.
//
// Dispatch: one workgroup per 256/lanes_per_channel channels. The host adds up the ranks next, or
// `finalize_grad` where they are on one device. Of a single rank there, that takes the tiles
// itself.

#import tile_sums

// (C) of the same as the tiles have
@group(0) @binding(2) var<storage, read_write> local: array<vec4<f32>>;

// It reads 16 bytes per tile of up to 16,384 values once: its time is that of a dispatch.
@compute @workgroup_size(256)
fn main(
    @builtin(local_invocation_index) invocation: u32,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
) {
    let place = locate(invocation, workgroup.x + workgroup.y * workgroups.x);
    let sums = sums_of_tiles(place);
    if (place.lane == 0u && place.tiles > 0u) {
        local[place.channel] = sums;
    }
}
