// The ranks' statistics merged by Chan's formula: what normalizes, and the running statistics.
//
// With the pivot P of the rank that has most values, a rank's mean lies
// d = (pivot − P) + Σ(x − pivot)/n from it; the mean of all is P + D with D = Σ weight·d, kept in
// two parts, and m2 = Σ [Σ(x − pivot)² − (Σ(x − pivot))²/n + n·(d − D)²].
// |D| is at most √ranks deviations, because the rank's n·(d − D)² with d near 0 is at most m2.
//
// Dispatch: one workgroup per 256 channels, an invocation per channel; of a single rank's tiles
// those of `combine_stats`, and a channel's first lane goes on. `normalize` runs next;
// `mean` and `inv_std` are for applications. Where the running statistics are vectors of theirs,
// these take the places of both: a kernel has eight buffers where the limits are portable.

#import params
#if OF_TILES
#import tile_stats
#else
#import channel
#endif
#import running
#import rank_weights
#import center
#import running_update

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
    var pivot = 0.0;
    if (params.count > 0.0) {
        pivot = sums_of(params.pivot_rank, channel).x;
    }
    var offset = 0.0;
    var not_finite = false;
    var overflowed = false;
    for (var rank = params.first_rank; rank < params.end_rank; rank++) {
        let of_rank = rank_weights[rank];
        if (of_rank.count == 0.0) {
            continue;
        }
        let sums = sums_of(rank, channel);
        not_finite |= sums.w != 0.0;
        overflowed |= is_not_finite(sums.x) || is_not_finite(sums.y) || is_not_finite(sums.z);
        offset += of_rank.weight * (difference_f32(sums.x, pivot) + sums.y / of_rank.count);
    }
    offset = settled_f32(offset);
    var m2 = 0.0;
    for (var rank = params.first_rank; rank < params.end_rank; rank++) {
        let of_rank = rank_weights[rank];
        if (of_rank.count == 0.0) {
            continue;
        }
        let sums = sums_of(rank, channel);
        let own = sums.y / of_rank.count;
        let from_pivot = settled_f32(difference_f32(sums.x, pivot) + own);
        let from_mean = difference_f32(from_pivot, offset);
        let about_own = difference_f32(sums.z, settled_f32(sums.y * own));
        m2 += max(about_own, 0.0) + (of_rank.count * from_mean) * from_mean;
    }
    m2 = settled_f32(m2);
    overflowed = !not_finite && (overflowed || is_not_finite(offset) || is_not_finite(m2));
    let root = inverse_root(m2 / max(params.count, 1.0), params.eps, params.eps_rest);
    let center = center_of(pivot, offset, root, not_finite || overflowed);
    centering[channel] = center;
#if !RUNNING_VECTORS
    mean[channel] = mean_of(center);
    inv_std[channel] = center.inv_std;
#endif
    if (params.tracks != 0u) {
        update_running(channel, pivot + offset, m2 / params.divisor, not_finite, overflowed);
    }
}
