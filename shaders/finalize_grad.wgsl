// The ranks' gradient sums merged: what the gradient of a rank's input is made with, and the
// gradients of its parameters.
//
// mean_dy = A/N and projection = inv_std²·B/N with A = Σg, B = Σ g·(x − mean) of all ranks that the
// statistics were taken of, where Σ g·(x − mean) = Σ g·(x − pivot) − rest·Σg. Both are 0 where the
// statistics were constants. grad_weight = inv_std·Σ g·(x − mean) and grad_bias = Σg over the rank,
// or over all of them divided by `divisor`; added to what is there, or in its place.
//
// Dispatch: one workgroup per 256 channels, an invocation per channel, for every rank; of a single
// rank's tiles those of `combine_grad_sums`, and a channel's first lane goes on. `grad_input` runs
// next.

#import params
#if OF_TILES
#import tile_sums
#else
#import channel
#endif
#import rank_grad_sums
#import center
#import accumulated

struct GradCenterBits {
    center: CenterBits,
    mean_dy: u32,
    projection: u32,
}

@group(0) @binding(3) var<storage, read> center: array<CenterBits>;   // (C), as in forward
@group(0) @binding(4) var<storage, read_write> grad_centering: array<GradCenterBits>;   // (C)
// (C), bits of f32, or a dummy
@group(0) @binding(5) var<storage, read_write> grad_weight: array<u32>;
// (C), bits of f32, or a dummy
@group(0) @binding(6) var<storage, read_write> grad_bias: array<u32>;

// What a gradient becomes that was `old`.
fn gradient_from(old: u32, value: f32, not_finite: bool) -> u32 {
    // Settled: as a product that is contracted into the sum it would not be rounded.
    let found = choose(bitcast<u32>(settled_f32(value)), NOT_FINITE, not_finite);
    if (params.accumulates == 0u) {
        return found;
    }
    return accumulated(old, found);
}

@compute @workgroup_size(256)
fn main(
    @builtin(local_invocation_index) invocation: u32,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
) {
#if OF_TILES
    let place = locate(invocation, workgroup.x + workgroup.y * workgroups.x);
    sums_of_rank = sums_of_tiles(place);
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
    let entry = center[channel];
    let rest = bitcast<f32>(entry.rest);
    let inv_std = bitcast<f32>(entry.inv_std);
    let center_not_finite = is_not_finite(inv_std);
    var own: GradSums;
    add_rank(&own, params.rank, channel, rest, center_not_finite);
    var all: GradSums;
    for (var rank = params.first_rank; rank < params.end_rank; rank++) {
        add_rank(&all, rank, channel, rest, center_not_finite);
    }

    var coefficients = GradCenterBits(entry, 0u, 0u);
    if (params.has_batch_statistics != 0u) {
        let count = max(params.count, 1.0);
        let mean_dy = settled_f32(all.dy / count);
        let projection = settled_f32((inv_std * (all.dy_xmu / count)) * inv_std);
        let not_finite = all.dy_not_finite || all.xmu_not_finite
            || is_not_finite(mean_dy) || is_not_finite(projection);
        // The center stays: by it the activation, and so the gradient of a residual, goes on as in
        // forward.
        coefficients.mean_dy = choose(bitcast<u32>(mean_dy), NOT_FINITE, not_finite);
        coefficients.projection = choose(bitcast<u32>(projection), 0u, not_finite);
    }
    grad_centering[channel] = coefficients;

    if (params.merges_parameters != 0u) {
        own = GradSums(
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
