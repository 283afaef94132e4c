// The statistics of ranks merged by Chan's formula: what normalizes a channel, and its running
// statistics.
//
// With the pivot P of the rank that has most values, a rank's mean lies
// d = (pivot − P) + Σ(x − pivot)/n from it; the mean of all is P + D with D = Σ weight·d, kept in
// two parts, and m2 = Σ [Σ(x − pivot)² − (Σ(x − pivot))²/n + n·(d − D)²].
// |D| is at most √ranks deviations, because the rank's n·(d − D)² with d near 0 is at most m2.

#import rank_weights
#import center
#import running_update

// Writes what comes of the sums of a channel.
fn finish(channel: u32) {
#if FINISHES
    let first = 0u;
    let end = 1u;
    let largest = 0u;
#else
    let first = params.first_rank;
    let end = params.end_rank;
    let largest = params.pivot_rank;
#endif
    var pivot = 0.0;
    if (params.count > 0.0) {
        pivot = sums_of(largest, channel).x;
    }
    var offset = 0.0;
    var not_finite = false;
    var overflowed = false;
    for (var rank = first; rank < end; rank++) {
        let of_rank = weight_of(rank);
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
    for (var rank = first; rank < end; rank++) {
        let of_rank = weight_of(rank);
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
#if FUSED
    channel_coefficients = vec4<f32>(pivot, offset, root, select(0.0, 1.0, not_finite || overflowed));
#endif
#if !RUNNING_VECTORS
    mean[channel] = mean_of(center);
    inv_std[channel] = center.inv_std;
#endif
    if (params.tracks != 0u) {
        update_running(channel, pivot + offset, m2 / params.divisor, not_finite, overflowed);
    }
}
