// Mean, m2 and inverse deviation of a channel from the sums of integers of all ranks, as f64.

#import rank_integers
#import deviations
#import grid
#import double_ratio

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
