// Sums and products of f64, and their powers of two. Each is rounded once.

#import double

// a·2^by.
fn double_scaled(a: Double, by: i32) -> Double {
    if (is_double_zero(a)) {
        return a;
    }
    return Double(a.sign, a.exponent + by, a.high, a.low);
}

fn double_negated(a: Double) -> Double {
    if (is_double_zero(a)) {
        return a;
    }
    return Double(a.sign ^ 0x80000000u, a.exponent, a.high, a.low);
}

fn double_sum(a: Double, b: Double) -> Double {
    if (is_double_zero(a)) {
        return b;
    }
    if (is_double_zero(b)) {
        return a;
    }
    var larger = a;
    var smaller = b;
    if (b.exponent > a.exponent) {
        larger = b;
        smaller = a;
    }
    let distance = u32(larger.exponent - smaller.exponent);
    // 64 bits up, so that beyond them the smaller one only tells on which side of a tie the sum is.
    let one = vec4<u32>(0u, 0u, larger.low, larger.high);
    var other = vec4<u32>(1u, 0u, 0u, 0u);
    if (distance <= 64u) {
        other = moved_up(vec4<u32>(smaller.low, smaller.high, 0u, 0u), 64u - distance);
    }
    let exponent = larger.exponent - 64;
    if (larger.sign == smaller.sign) {
        return rounded(plus(one, other), exponent, larger.sign);
    }
    if (is_below(one, other)) {
        return rounded(minus(other, one), exponent, smaller.sign);
    }
    return rounded(minus(one, other), exponent, larger.sign);
}

fn double_difference(a: Double, b: Double) -> Double {
    return double_sum(a, double_negated(b));
}

fn double_product(a: Double, b: Double) -> Double {
    if (is_double_zero(a) || is_double_zero(b)) {
        return ZERO_DOUBLE;
    }
    let ones = vec4<u32>(a.low, a.low, a.high, a.high);
    let others = vec4<u32>(b.low, b.high, b.low, b.high);
    let low = ones * others;
    let high = upper_of_products(ones, others);
    let outer = vec4<u32>(low.x, high.x, low.w, high.w);
    let inner = plus(vec4<u32>(0u, low.y, high.y, 0u), vec4<u32>(0u, low.z, high.z, 0u));
    return rounded(plus(outer, inner), a.exponent + b.exponent, a.sign ^ b.sign);
}
