// Merges the ranks' sums of backward and of double backward to the coefficients of both gradients
// of a rank, and to the gradient with respect to its weight.
//
// With s = inv_std, h = (x − mean)·s and sums over all ranks that the statistics were taken of:
// A = Σg, B = Σ g·h, V = Σv, H = Σ v·h, P = Σ v·p; u and q are the cotangents of grad_weight and
// grad_bias. parts/double_coefficients.wgsl makes the coefficients from
//
//   mean_v = V/N, mean_vh = H/N, mean_dy = A/N, us = u·s, shift = s·Σ (u − u_rank)·A_rank/N,
//   k1 = s·Σ u_rank·B_rank/N, k2 = s·(P − 2·B·H/N)/N, g_factor = s·H/N, v_factor = s·B/N
//
// All but u, us and q are 0 where the statistics were constants. The gradient with respect to the
// weight is s·Σ v·p over the rank, or over all of them divided by `divisor`.
//
// p has the mean_dy and the projection of `finalize_grad`. The shift is a sum of differences, which
// are 0 where all ranks have one u.
//
// Dispatch: one workgroup per 256 channels, an invocation per channel, for every rank.
// `double_input` runs next, once for each gradient.

#import channel
#import center
#import double_sums

struct DoubleCenterBits {
    center: CenterBits,
    of_v: vec4<u32>,      // mean_v, mean_vh, u, q
    of_x: vec4<u32>,      // mean_dy, us, shift, k1
    products: vec4<u32>,  // k2, g_factor, v_factor, nothing
}

@group(0) @binding(3) var<storage, read> center: array<CenterBits>;   // (C), as in forward
// (ranks, C) of (Σv, Σ v·(x − pivot), Σ v·p, flag of v), laid out as `locals`, or a dummy
@group(0) @binding(4) var<storage, read> double_locals: array<vec4<f32>>;
// (ranks, C) of (u, q), one rank every params.cotangent_stride entries, or a dummy
@group(0) @binding(5) var<storage, read> cotangents: array<vec2<f32>>;
@group(0) @binding(6) var<storage, read_write> double_centering: array<DoubleCenterBits>;   // (C)
// (C), bits of f32, or a dummy
@group(0) @binding(7) var<storage, read_write> weight_gradient: array<u32>;

fn not_finite_in(values: vec4<f32>) -> bool {
    return any((bitcast<vec4<u32>>(values) & vec4<u32>(EXPONENT)) == vec4<u32>(EXPONENT));
}

// The bits of coefficients, and of those that are not finite 0 with a NaN at the end.
fn bits_of(values: vec4<f32>, not_finite: bool) -> vec4<u32> {
    let replaced = vec4<u32>(0u, 0u, 0u, NOT_FINITE);
    return choose_vec4(bitcast<vec4<u32>>(values), replaced, vec4<bool>(not_finite));
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
    let inv_std = bitcast<f32>(entry.inv_std);
    let place = DoubleChannel(channel, bitcast<f32>(entry.rest), is_not_finite(inv_std));
    let cotangent = own_cotangents(channel);
    let own = sums_of_ranks(params.rank, params.rank + 1u, place, cotangent.x);
    let all = sums_of_ranks(params.first_rank, params.end_rank, place, cotangent.x);

    let us = settled_f32(cotangent.x * inv_std);
    var of_v = vec4<f32>(0.0, 0.0, cotangent);
    var of_x = vec4<f32>(0.0, us, 0.0, 0.0);
    var products = vec4<f32>(0.0);
    if (params.has_batch_statistics != 0u) {
        let n = max(params.count, 1.0);
        let mean_vh = settled_f32(inv_std * (all.v_xmu / n));
        let mean_gh = settled_f32(inv_std * (all.dy_xmu / n));
        let of_products = difference_f32(all.v_p / n, settled_f32(2.0 * mean_gh * mean_vh));
        let shift = inv_std * (all.shift / n);
        let k1 = (inv_std * (all.ug_xmu / n)) * inv_std;
        of_v = settled_vec4(vec4<f32>(all.v / n, mean_vh, cotangent));
        of_x = settled_vec4(vec4<f32>(all.dy / n, us, shift, k1));
        products = settled_vec4(
            vec4<f32>(inv_std * of_products, inv_std * mean_vh, inv_std * mean_gh, 0.0),
        );
    }
    let of_batch = params.has_batch_statistics != 0u;
    let v_not_finite = of_batch && all.v_not_finite;
    let sums_not_finite = of_batch && (all.g_not_finite || all.ug_not_finite);
    let mean_not_finite = v_not_finite || is_not_finite(of_v.x);
    let grad_output_not_finite = v_not_finite || not_finite_in(of_v);
    let x_not_finite = mean_not_finite || sums_not_finite
        || not_finite_in(of_x) || not_finite_in(products);
    var v_bits = bits_of(of_v, grad_output_not_finite);
    v_bits.x = choose(bitcast<u32>(of_v.x), 0u, mean_not_finite);
    var product_bits = bits_of(products, x_not_finite);
    product_bits.w = 0u;
    // The center stays: by it the activation goes on as in forward.
    double_centering[channel] =
        DoubleCenterBits(entry, v_bits, bits_of(of_x, x_not_finite), product_bits);

    if (params.has_weight_gradient != 0u) {
        var sum = settled_f32(own.v_p);
        var not_finite = own.v_not_finite || own.g_not_finite;
        if (params.merges_parameters != 0u) {
            sum = settled_f32(all.v_p / params.divisor);
            not_finite = all.v_not_finite || all.g_not_finite;
        }
        // Of no v nothing, even if inv_std is NaN. p has the means of all ranks.
        let is_empty = is_zero(sum) && !not_finite;
        let is_spoilt = (not_finite || (of_batch && all.g_not_finite)) && !is_empty;
        let product = choose(bitcast<u32>(settled_f32(sum * inv_std)), 0u, is_empty);
        weight_gradient[channel] =
            choose(product, NOT_FINITE, is_spoilt && params.has_cotangent != 0u);
    }
}
