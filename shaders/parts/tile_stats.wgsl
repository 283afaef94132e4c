// Local statistics of a rank from those of its tiles: Chan's merge of all tiles of a channel at
// once.
//
// The pivot is the count-weighted mean of the tile means, formed relative to the first of them. A
// tile about its own mean m moves to the pivot by d = m − pivot: Σ(x − pivot) = Σ(x − m) + n·d,
// Σ(x − pivot)² = Σ(x − m)² + d·(2Σ(x − m) + n·d).

#import combine
#import reduce
#import settled

// (tiles, C) of (m, Σ(x − m), Σ(x − m)², flag); where tiles keep counts the count instead of the flag,
// below 0 where a value is not finite
@group(0) @binding(1) var<storage, read> partial: array<vec4<f32>>;

fn flag_of(stats: vec4<f32>) -> f32 {
    return select(stats.w, select(0.0, 1.0, stats.w < 0.0), params.keeps_counts != 0u);
}

fn count_of(tile: u32, stats: vec4<f32>) -> f32 {
    if (params.keeps_counts != 0u) {
        return abs(stats.w);
    }
    return f32(choose(
        params.tile_values,
        params.last_values,
        (tile + 1u) % params.segment_tiles == 0u,
    ));
}

// Pivot, Σ(x − pivot), Σ(x − pivot)² and the flag of a channel of so many values; every invocation
// of a workgroup calls it, for its place.
//
//     pivot = m₀ + Σ n_t·(m_t − m₀)/n                    over the tiles t of the channel
//     S1    = Σ (S1_t + n_t·d)                           with d = m_t − pivot
//     S2    = Σ (S2_t + d·(2·S1_t + n_t·d))
//
// * Lanes of one channel take tiles in turn, and neighbouring lanes are of neighbouring channels:
//   loads coalesce. No barrier is in a loop.
// * Batches of 16 tiles are summed before they join the lane's sum: rounding grows with tiles/16.
//   Batches, lanes and `sum_over_lanes` have one order, whatever the device: so have the bits.
fn stats_of_tiles(place: Place, values: f32) -> vec4<f32> {
    let channel = place.channel;
    var first_mean = 0.0;
    if (place.tiles > 0u) {
        first_mean = partial[params.first_tile * params.channels + channel].x;
    }

    var offset = 0.0;
    for (var start = place.lane; start < place.tiles; start += BATCH * params.lanes_per_channel) {
        var batch = 0.0;
        for (
            var tile = start;
            tile < end_of_batch(start, place.tiles);
            tile += params.lanes_per_channel
        ) {
            let stats = partial[tile * params.channels + channel];
            batch += count_of(tile, stats) * difference_f32(stats.x, first_mean);
        }
        offset += batch;
    }
    let total = sum_over_lanes(
        vec4<f32>(offset, 0.0, 0.0, 0.0),
        place.lane,
        place.channel_slot,
        params.lanes_per_channel,
        params.channels_per_workgroup_log2,
    );
    let pivot = settled_f32(first_mean + total.x / values);

    var moved = vec4<f32>(0.0);
    for (var start = place.lane; start < place.tiles; start += BATCH * params.lanes_per_channel) {
        var batch = vec4<f32>(0.0);
        for (
            var tile = start;
            tile < end_of_batch(start, place.tiles);
            tile += params.lanes_per_channel
        ) {
            let stats = partial[tile * params.channels + channel];
            let d = difference_f32(stats.x, pivot);
            let shift = count_of(tile, stats) * d;
            batch += vec4<f32>(
                stats.y + shift,
                stats.z + d * (2.0 * stats.y + shift),
                flag_of(stats),
                0.0,
            );
        }
        moved += batch;
    }
    let sums = sum_over_lanes(
        moved,
        place.lane,
        place.channel_slot,
        params.lanes_per_channel,
        params.channels_per_workgroup_log2,
    );
    return vec4<f32>(pivot, sums.x, sums.y, sums.z);
}
