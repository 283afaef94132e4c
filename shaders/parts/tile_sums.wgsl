// Local gradient sums of a rank from those of its tiles.

#import combine
#import reduce

// (tiles, C) of (Σg, Σ g·(x − pivot), flag of g, flag of x)
@group(0) @binding(1) var<storage, read> partial: array<vec4<f32>>;

// The same of a channel; every invocation of a workgroup calls it, for its place.
//
//     Σ partial of the tiles of the channel: batches of 16 per lane, then over lanes
//
// Coalesced as in `tile_stats`, without a barrier in a loop. The order of the sum is as fixed.
fn sums_of_tiles(place: Place) -> vec4<f32> {
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
    return sum_over_lanes(
        total,
        place.lane,
        place.channel_slot,
        params.lanes_per_channel,
        params.channels_per_workgroup_log2,
    );
}
