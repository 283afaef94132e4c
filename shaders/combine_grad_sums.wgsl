// Local gradient sums of a rank from those of its tiles: Σg, Σ g·(x − pivot), and the flags.
//
// Dispatch: one workgroup per 256/lanes_per_channel channels. The host adds up the ranks next, or
// `finalize_grad` where they are on one device.

#import combine
#import reduce

// (tiles, C) of (Σg, Σ g·(x − pivot), flag of g, flag of x)
@group(0) @binding(1) var<storage, read> partial: array<vec4<f32>>;
// (C) of the same
@group(0) @binding(2) var<storage, read_write> local: array<vec4<f32>>;

//     local = Σ partial of the tiles of the channel: batches of 16 per lane, then over lanes
//
// It reads 16 bytes per tile of up to 16,384 values once, coalesced as in `combine_stats`, and has
// no barrier in a loop: its time is that of a dispatch. The order of the sum is as fixed.
@compute @workgroup_size(256)
fn main(
    @builtin(local_invocation_index) invocation: u32,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
) {
    let place = locate(invocation, workgroup.x + workgroup.y * workgroups.x);
    var total = vec4<f32>(0.0);
    for (var start = place.lane; start < place.tiles; start += BATCH * params.lanes_per_channel) {
        var batch = vec4<f32>(0.0);
        for (
            var tile = start;
            tile < end_of_batch(start, place.tiles);
            tile += params.lanes_per_channel
        ) {
            batch += partial[tile * params.channels + place.channel];
        }
        total += batch;
    }
    let sums = sum_over_lanes(
        total,
        place.lane,
        place.channel_slot,
        params.lanes_per_channel,
        params.channels_per_workgroup_log2,
    );
    if (place.lane == 0u && place.tiles > 0u) {
        local[place.channel] = sums;
    }
}
