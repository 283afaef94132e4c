// The ranks' statistics merged: what normalizes, and the running statistics, which are updated.
//
// With the pivot P of the rank that has most values, a rank's mean lies
// d = (pivot − P) + Σ(x − pivot)/n from it; the mean of all is P + D with D = Σ weight·d, kept in
// two parts, and m2 = Σ [Σ(x − pivot)² − (Σ(x − pivot))²/n + n·(d − D)²].
// |D| is at most √ranks deviations, because the rank's n·(d − D)² with d near 0 is at most m2.
// Dispatch: one workgroup per 256 channels. `normalize` runs next; `mean` and `inv_std` are for
// applications.

#import params
#import running
#import rank_weights
#import center

@group(0) @binding(3) var<storage, read_write> running: array<Running>;        // (C)
@group(0) @binding(4) var<storage, read_write> centering: array<CenterBits>;   // (C)
@group(0) @binding(5) var<storage, read_write> mean: array<u32>;               // (C), bits of f32
@group(0) @binding(6) var<storage, read_write> inv_std: array<u32>;            // (C), bits of f32

// Moves a running value by its weights; with a weight of 0 or 1 the other term has no part, not
// even as 0·NaN.
fn blended(old: u32, batch: f32, old_weight: f32, batch_weight: f32, not_finite: bool) -> u32 {
    if (batch_weight == 0.0) {
        return old;
    }
    if (not_finite) {
        return NOT_FINITE;
    }
    if (batch_weight == 1.0) {
        return bitcast<u32>(batch);
    }
    if (is_not_finite(bitcast<f32>(old))) {
        return old;
    }
    return bitcast<u32>(old_weight * bitcast<f32>(old) + batch_weight * batch);
}

// Where the sums left the range of f32, though every value is in it, the batch is counted and the
// rest stays as it was.
fn update_running(channel: u32, mean: f32, variance: f32, not_finite: bool, overflowed: bool) {
    var entry = running[channel];
    entry.batches_low += 1u;
    entry.batches_high += u32(entry.batches_low == 0u);
    var old_weight = params.old_weight;
    var batch_weight = params.batch_weight;
    if (params.is_cumulative != 0u) {
        let batches = f32(entry.batches_high) * 4294967296.0 + f32(entry.batches_low);
        // The first batch replaces what was there, however the driver divides.
        batch_weight = select(1.0 / batches, 1.0, batches <= 1.0);
        old_weight = 1.0 - batch_weight;
    }
    if (!overflowed) {
        entry.mean = blended(entry.mean, mean, old_weight, batch_weight, not_finite);
        entry.variance = blended(entry.variance, variance, old_weight, batch_weight, not_finite);
    }
    running[channel] = entry;
}

@compute @workgroup_size(256)
fn main(
    @builtin(local_invocation_index) invocation: u32,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
) {
    let channel = (workgroup.x + workgroup.y * workgroups.x) * 256u + invocation;
    if (channel >= params.channels) {
        return;
    }
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
    let root = inverse_root(m2 / max(params.count, 1.0) + params.eps);
    let center = center_of(pivot, offset, root, not_finite || overflowed);
    centering[channel] = center;
    mean[channel] = mean_of(center);
    inv_std[channel] = center.inv_std;
    if (params.tracks != 0u) {
        update_running(channel, pivot + offset, m2 / params.divisor, not_finite, overflowed);
    }
}
