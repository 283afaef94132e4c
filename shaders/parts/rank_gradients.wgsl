// What a rank's gradients are made with, and the gradients of its parameters.
//
// mean_dy = A/N and projection = inv_std²·B/N with A = Σg, B = Σ g·(x − mean) of all ranks that the
// statistics were taken of, where Σ g·(x − mean) = Σ g·(x − pivot) − rest·Σg. Both are 0 where the
// statistics were constants. grad_weight = inv_std·Σ g·(x − mean) and grad_bias = Σg over the rank,
// or over all of them divided by `divisor`; added to what is there, or in its place.

#import rank_grad_sums
#import center
#import accumulated

struct GradCenterBits {
    center: CenterBits,
    mean_dy: u32,
    projection: u32,
}

// What a gradient becomes that was `old`.
fn gradient_from(old: u32, value: f32, not_finite: bool) -> u32 {
    // Settled: as a product that is contracted into the sum it would not be rounded.
    let found = choose(bitcast<u32>(settled_f32(value)), NOT_FINITE, not_finite);
    if (params.accumulates == 0u) {
        return found;
    }
    return accumulated(old, found);
}

// Writes what comes of the sums of a channel.
fn finish(channel: u32) {
    let entry = center_at(channel);
    let rest = bitcast<f32>(entry.rest);
    let inv_std = bitcast<f32>(entry.inv_std);
    let center_not_finite = is_not_finite(inv_std);
    var all: RankGradSums;
#if FINISHES
    add_rank(&all, 0u, channel, rest, center_not_finite);
    var own = all;
#else
    for (var rank = params.first_rank; rank < params.end_rank; rank++) {
        add_rank(&all, rank, channel, rest, center_not_finite);
    }
    var own: RankGradSums;
    add_rank(&own, params.rank, channel, rest, center_not_finite);
#endif

    var mean_dy = 0.0;
    var projection = 0.0;
    var not_finite = false;
    if (params.has_batch_statistics != 0u) {
        let count = max(params.count, 1.0);
        mean_dy = settled_f32(all.dy / count);
        projection = settled_f32((inv_std * (all.dy_xmu / count)) * inv_std);
        not_finite = all.dy_not_finite || all.xmu_not_finite
            || is_not_finite(mean_dy) || is_not_finite(projection);
    }
#if FUSED
    channel_coefficients = vec4<f32>(mean_dy, projection, 0.0, select(0.0, 1.0, not_finite));
#else
    // The center stays: by it the activation, and so the gradient of a residual, goes on as in
    // forward.
    grad_centering[channel] = GradCenterBits(
        entry,
        choose(bitcast<u32>(mean_dy), NOT_FINITE, not_finite),
        choose(bitcast<u32>(projection), 0u, not_finite),
    );
#endif

    if (params.merges_parameters != 0u) {
        own = RankGradSums(
            all.dy / params.divisor,
            all.dy_xmu / params.divisor,
            all.dy_not_finite,
            all.xmu_not_finite,
        );
    }
    if (params.has_grad_weight != 0u) {
        // 0 where there is nothing to add, even if inv_std is NaN: of a rank without values.
        let value = select(own.dy_xmu * inv_std, 0.0, own.dy_xmu == 0.0);
        grad_weight[channel] = gradient_from(grad_weight[channel], value, own.xmu_not_finite);
    }
    if (params.has_grad_bias != 0u) {
        grad_bias[channel] = gradient_from(grad_bias[channel], own.dy, own.dy_not_finite);
    }
}
