// The sums of integers of all ranks merged: what normalizes, and the running statistics, with the
// bits that the host makes of the same sums (`IntegerSums::moments`, `RunningStats`, `Centering`).
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
#import rank_integers
#import deviations
#import grid
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

struct Moments {
    mean: Double,
    m2: Double,
}

// a/count·2^exponent, rounded once.
fn ratio(a: Long, count: u32, exponent: i32) -> Double {
    var magnitude = a;
    var sign = 0u;
    if (is_long_negative(a)) {
        magnitude = long_negated(a);
        sign = 0x80000000u;
    }
    let up = long_leading_zeros(magnitude);
    if (up == 256u) {
        return ZERO_DOUBLE;
    }
    let digits = long_moved_up(magnitude, up);
    let by_up = countLeadingZeros(count);
    let left = any(digits.low != vec4<u32>(0u));
    let by = vec2<u32>(0u, count << by_up);
    return double_ratio(digits.high, left, by, exponent + 128 - i32(up) + 32 + i32(by_up), sign);
}

// The pivot in steps, an integer.
fn steps_of(pivot: u32, e: i32) -> vec4<u32> {
    let value = double_of_f32(pivot);
    let by = value.exponent - e;
    var steps = vec4<u32>(value.low, value.high, 0u, 0u);
    if (by >= 0) {
        steps = moved_up(steps, u32(by));
    } else {
        steps = moved_down(steps, u32(min(-by, 127)));
    }
    if (value.sign != 0u) {
        return negated(steps);
    }
    return steps;
}

fn moments_of(channel: u32, pivot: u32) -> Moments {
    let grid = grids[channel];
    if (!has_grid(grid)) {
        return Moments(double_of_f32(pivot), ZERO_DOUBLE);
    }
    let e = exponent_of(grid);
    let count = params.count;
    let integers = sums_of(params.first_rank, params.end_rank, INTEGERS, channel, count);
    var rest = vec4<u32>(0u);
    var rest_of_squares = vec4<u32>(0u);
    if (has_outliers(integers.s, integers.product, count)) {
        let rests = sums_of(params.first_rank, params.end_rank, OF_RESTS, channel, count);
        let squares =
            sums_of(params.first_rank, params.end_rank, OF_SQUARES_OF_RESTS, channel, count);
        rest = rests.t;
        rest_of_squares = plus(moved_up(rests.product, 25u), squares.product);
    }
    let sum = plus(moved_up(integers.s, 24u), rest);
    let squares =
        long_sum(long_moved_up(long_of(integers.product), 48u), long_of(rest_of_squares));
    let from_pivot = long_moved_up(long_times(long_of(steps_of(pivot, e)), count), 24u);
    let spread = long_difference(long_times(squares, count), long_square(magnitude_of(sum)));
    return Moments(
        ratio(long_sum(from_pivot, long_of(sum)), count, e - 24),
        ratio(spread, count, 2 * (e - 24)),
    );
}

// 1/√(variance + eps), 0 where that is 0.
fn inverse_deviation(variance: Double) -> Double {
    let sum = double_sum(variance, double_of_bits(params.eps_low, params.eps_high));
    if (is_double_zero(sum)) {
        return sum;
    }
    return double_quotient(ONE_DOUBLE, double_root(sum));
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
