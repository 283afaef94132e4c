// Merges the sums of integers of all ranks to the centering of every channel, and updates the
// running statistics, with the bits of the host (`IntegerSums::moments`, `RunningStats`,
// `Centering`).
//
//     S = 2²⁴·Σq + Σr, Q = 2⁴⁸·Σq² + Σ(2²⁵·q·r + r²)         256 bits, exact
//     mean = p + 2^(e − 24)·S/N, m2 = 2^(2e − 48)·(N·Q − S²)/N    rounded once to f64
//     inv_std = 1/√(m2/N + eps)                                   each operation rounded as f64
//
// Dispatch: one workgroup per 256 channels, an invocation per channel. `normalize` runs next. The
// forms of the running statistics are those of `finalize_stats`.

#import params
#import channel
#import running
#import exact_moments
#import packed
#import center_bits
#import exact_running

#if RUNNING_VECTORS
@group(0) @binding(3) var<storage, read> running_mean: array<u32>;             // (C), bits of f32
@group(0) @binding(4) var<storage, read> running_variance: array<u32>;         // (C), bits of f32
@group(0) @binding(5) var<storage, read_write> grids: array<vec4<u32>>;        // (3, C)
@group(0) @binding(6) var<storage, read_write> centering: array<CenterBits>;   // (C)
@group(0) @binding(7) var<storage, read_write> next_mean: array<u32>;          // (C), bits of f32
@group(0) @binding(8) var<storage, read_write> next_variance: array<u32>;      // (C), bits of f32
#else
@group(0) @binding(3) var<storage, read_write> running: array<Running>;        // (C)
@group(0) @binding(4) var<storage, read_write> grids: array<vec4<u32>>;        // (3, C)
@group(0) @binding(5) var<storage, read_write> centering: array<CenterBits>;   // (C)
@group(0) @binding(6) var<storage, read_write> mean: array<u32>;               // (C), bits of f32
@group(0) @binding(7) var<storage, read_write> inv_std: array<u32>;            // (C), bits of f32
#endif

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
    let pivot = grids[params.channels + channel].x;
    let not_finite = !is_finite(pivot);
    var moments = Moments(ZERO_DOUBLE, ZERO_DOUBLE);
    if (!not_finite) {
        moments = moments_of(channel, pivot);
    }
    let values = vec4<u32>(max(params.count, 1u), 0u, 0u, 0u);
    let root = inverse_deviation(double_quotient(moments.m2, rounded(values, 0, 0u)));
    grids[params.channels + channel] = vec4<u32>(pivot, packed(moments.mean));
    grids[2u * params.channels + channel] = vec4<u32>(packed(root), 0u);
    let center = exact_center(moments.mean, root, not_finite);
    centering[channel] = center;
#if !RUNNING_VECTORS
    mean[channel] = choose(f32_of(moments.mean), NOT_FINITE, not_finite);
    inv_std[channel] = choose(at_most_largest(f32_of(root)), NOT_FINITE, not_finite);
#endif
    if (params.tracks != 0u) {
        let divisor = rounded(vec4<u32>(params.divisor, 0u, 0u, 0u), 0, 0u);
        let variance = double_quotient(moments.m2, divisor);
        update_running(channel, moments.mean, variance, not_finite);
    }
}
