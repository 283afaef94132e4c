// Whether the range of a channel has far outliers: half of it is beyond 32 deviations. Then the
// rounding errors of its integers are summed too.

#import long

// N·Σq² − (Σq)².
fn spread_of(first: vec4<u32>, second: vec4<u32>, count: u32) -> Long {
    return long_difference(long_times(long_of(second), count), long_square(magnitude_of(first)));
}

fn magnitude_of(a: vec4<u32>) -> vec4<u32> {
    if (is_negative(a)) {
        return negated(a);
    }
    return a;
}

// N²·2⁵⁸ > 2¹⁰·(N·Σq² − (Σq)²).
fn has_outliers(first: vec4<u32>, second: vec4<u32>, count: u32) -> bool {
    let all = long_square(vec4<u32>(count, 0u, 0u, 0u));
    let beyond = long_difference(spread_of(first, second, count), long_moved_up(all, 48u));
    return is_long_negative(beyond);
}
