// The running update: running ← old_weight·running + batch_weight·batch, for mean and variance of a
// channel.

#import params
#import running
#import finite

// A running value after a batch. With a weight of 0 or 1 the other term has no part, not even as
// 0·NaN.
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
#if RUNNING_VECTORS
fn update_running(channel: u32, mean: f32, variance: f32, not_finite: bool, overflowed: bool) {
    let old_weight = params.old_weight;
    let batch_weight = select(params.batch_weight, 0.0, overflowed);
    next_mean[channel] =
        blended(running_mean[channel], mean, old_weight, batch_weight, not_finite);
    next_variance[channel] =
        blended(running_variance[channel], variance, old_weight, batch_weight, not_finite);
}
#else
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
#endif
