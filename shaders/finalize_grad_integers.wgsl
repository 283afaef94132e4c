// Merges the gradient sums of integers of all ranks to the coefficients of a rank's grad_input, and
// to the gradients of its parameters, with the bits of the host (`IntegerSums::gradient_sums`,
// `Normalization::grad_centering`).
//
//     A = 2^f·Σw, B = 2^(e + f)·Σq·w + (p − mean)·A
//     mean_dy = A/N, projection = inv_std·(inv_std·B/N)/unit
//
// grad_weight = inv_std·B and grad_bias = A, each over the rank, or over all of them divided by
// `divisor`. They are added to the old gradients, or replace them. Each operation is rounded as
// f64.
//
// Dispatch: one workgroup per 256 channels, an invocation per channel, for every rank. `grad_input`
// runs next.

#import params
#import channel
#import exact_grad_sums
#import double_ratio
#import center_bits
#import accumulated

struct GradCenterBits {
    center: CenterBits,
    mean_dy: u32,
    projection: u32,
}

@group(0) @binding(3) var<storage, read> center: array<CenterBits>;   // (C), as in forward
// (3, C), as in forward: grids, pivots and means, inverse deviations
@group(0) @binding(4) var<storage, read> grids: array<vec4<u32>>;
// (C, 2): of x and of g; then (C): whether a gradient is not finite
@group(0) @binding(5) var<storage, read> grad_grids: array<vec4<u32>>;
@group(0) @binding(6) var<storage, read_write> grad_centering: array<GradCenterBits>;   // (C)
// (C), bits of f32, or a dummy
@group(0) @binding(7) var<storage, read_write> grad_weight: array<u32>;
// (C), bits of f32, or a dummy
@group(0) @binding(8) var<storage, read_write> grad_bias: array<u32>;

// The new bits of a gradient whose bits were `old`.
fn gradient_from(old: u32, value: u32, not_finite: bool) -> u32 {
    let found = choose(value, NOT_FINITE, not_finite);
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
    let inv_std = unpacked(grids[2u * params.channels + channel].xyz);
    let all = grad_sums_of(params.first_rank, params.end_rank, channel, params.count);
    let count = rounded(vec4<u32>(max(params.count, 1u), 0u, 0u, 0u), 0, 0u);
    let mean_dy = f32_of(double_quotient(all.dy, count));
    let in_units = double_quotient(double_product(inv_std, all.dy_xmu), count);
    let unit = i32(entry.unit >> 23u) - 127;
    let projection = f32_of(double_scaled(double_product(inv_std, in_units), -unit));
    let not_finite = all.dy_not_finite || all.xmu_not_finite
        || !is_finite(mean_dy) || !is_finite(projection);
    // The center stays: by it the activation, and so the gradient of a residual, goes on as in
    // forward.
    grad_centering[channel] = GradCenterBits(
        entry,
        choose(mean_dy, NOT_FINITE, not_finite),
        choose(projection, 0u, not_finite),
    );

    var own = all;
    if (params.merges_parameters == 0u) {
        own = grad_sums_of(params.rank, params.rank + 1u, channel, params.own_count);
    } else {
        let divisor = double_of_bits(params.divisor_low, params.divisor_high);
        own.dy = double_quotient(all.dy, divisor);
        own.dy_xmu = double_quotient(all.dy_xmu, divisor);
    }
    if (params.has_grad_weight != 0u) {
        let value = f32_of(double_product(own.dy_xmu, inv_std));
        grad_weight[channel] = gradient_from(grad_weight[channel], value, own.xmu_not_finite);
    }
    if (params.has_grad_bias != 0u) {
        let value = f32_of(own.dy);
        grad_bias[channel] = gradient_from(grad_bias[channel], value, own.dy_not_finite);
    }
}
