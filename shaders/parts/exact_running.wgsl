// The running update in f64, as on the host: running ← old_weight·running + batch_weight·batch,
// rounded once to f32, for mean and variance of a channel.

#import params
#import running
#import double
#import double_terms
#import double_ratio
#import finite

struct Weights {
    old: Double,
    batch: Double,
}

// A running value after a batch. With a weight of 0 or 1 the other term has no part, not even as
// 0·NaN.
fn blended(old: u32, batch: Double, weights: Weights, not_finite: bool) -> u32 {
    if (is_double_zero(weights.batch)) {
        return old;
    }
    let is_all = is_double_zero(weights.old);
    if (not_finite) {
        return NOT_FINITE;
    }
    if (is_all) {
        return f32_of(batch);
    }
    if ((old & EXPONENT) == EXPONENT) {
        return old;
    }
    let kept = double_product(weights.old, double_of_f32(old));
    return f32_of(double_sum(kept, double_product(weights.batch, batch)));
}

fn weights_of_params() -> Weights {
    return Weights(
        double_of_bits(params.old_weight_low, params.old_weight_high),
        double_of_bits(params.batch_weight_low, params.batch_weight_high),
    );
}

#if RUNNING_VECTORS
fn update_running(channel: u32, mean: Double, variance: Double, not_finite: bool) {
    let weights = weights_of_params();
    next_mean[channel] = blended(running_mean[channel], mean, weights, not_finite);
    next_variance[channel] = blended(running_variance[channel], variance, weights, not_finite);
}
#else
fn update_running(channel: u32, mean: Double, variance: Double, not_finite: bool) {
    var entry = running[channel];
    entry.batches_low += 1u;
    entry.batches_high += u32(entry.batches_low == 0u);
    var weights = weights_of_params();
    if (params.is_cumulative != 0u) {
        let batches = vec4<u32>(entry.batches_low, entry.batches_high, 0u, 0u);
        weights.batch = double_quotient(ONE_DOUBLE, rounded(batches, 0, 0u));
        weights.old = double_difference(ONE_DOUBLE, weights.batch);
    }
    entry.mean = blended(entry.mean, mean, weights, not_finite);
    entry.variance = blended(entry.variance, variance, weights, not_finite);
    running[channel] = entry;
}
#endif
