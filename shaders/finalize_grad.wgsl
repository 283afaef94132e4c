// The ranks' gradient sums merged: what the gradient of a rank's input is made with, and the
// gradients of its parameters.
//
// mean_dy = A/N and projection = inv_std²·B/N with A = Σg, B = Σ g·(x − mean) of all ranks that the
// statistics were taken of, where Σ g·(x − mean) = Σ g·(x − pivot) − rest·Σg. Both are 0 where the
// statistics were constants. grad_weight = inv_std·Σ g·(x − mean) and grad_bias = Σg over the rank,
// or over all of them divided by `divisor`; added to what is there, or in its place.
//
// Dispatch: one workgroup per 256 channels, an invocation per channel, for every rank. `grad_input`
// runs next.

#import params
#import channel
#import rank_weights
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

struct GradSums {
    dy: f32,          // Σg
    dy_xmu: f32,      // Σ g·(x − mean)
    dy_not_finite: bool,
    xmu_not_finite: bool,
}

// Adds a rank's sums; a rank without values adds nothing, whatever the others made of the channel.
fn add_rank(
    total: ptr<function, GradSums>,
    rank: u32,
    channel: u32,
    rest: f32,
    center_not_finite: bool,
) {
    if (rank_weights[rank].count == 0.0) {
        return;
    }
    let sums = sums_of(rank, channel);
    let not_finite = sums.z != 0.0;
    (*total).dy += sums.x;
    (*total).dy_xmu += difference_f32(sums.y, settled_f32(rest * sums.x));
    (*total).dy_not_finite |= not_finite;
    (*total).xmu_not_finite |= not_finite || sums.w != 0.0 || center_not_finite;
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

@compute @workgroup_size(256)
fn main(
    @builtin(local_invocation_index) invocation: u32,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
) {
    let channel = channel_of(invocation, workgroup, workgroups);
    if (channel >= params.channels) {
        return;
    }
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
