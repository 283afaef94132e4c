// Quotients and roots of f64, digit by digit. Each is rounded once.

#import double

// a·2 with a bit behind it.
fn with_bit(a: vec2<u32>, bit: u32) -> vec2<u32> {
    return vec2<u32>((a.x << 1u) | bit, (a.y << 1u) | (a.x >> 31u));
}

fn is_below_two_words(a: vec2<u32>, b: vec2<u32>) -> bool {
    return a.y < b.y || (a.y == b.y && a.x < b.x);
}

fn two_words_difference(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    return vec2<u32>(a.x - b.x, a.y - b.y - u32(a.x < b.x));
}

// (2⁶⁴·digits.zw + digits.xy)·2^exponent over `by`, of which both have the highest bit set;
// `is_above` where the true digits are more.
fn double_ratio(
    digits: vec4<u32>,
    is_above: bool,
    by: vec2<u32>,
    exponent: i32,
    sign: u32,
) -> Double {
    var rest = digits.zw;
    var next = digits.xy;
    var quotient = vec2<u32>(0u);
    // A digit of the quotient each: 56 or 57 are not 0 above the first that is.
    for (var i = 0u; i < 57u; i++) {
        var beyond = false;
        if (i > 0u) {
            beyond = (rest.y >> 31u) == 1u;
            rest = with_bit(rest, next.y >> 31u);
            next = with_bit(next, 0u);
        }
        let goes = beyond || !is_below_two_words(rest, by);
        if (goes) {
            rest = two_words_difference(rest, by);
        }
        quotient = with_bit(quotient, u32(goes));
    }
    let left = u32(is_above || any(rest != vec2<u32>(0u)) || any(next != vec2<u32>(0u)));
    let all_digits = moved_up(vec4<u32>(quotient, 0u, 0u), 1u) | vec4<u32>(left, 0u, 0u, 0u);
    // The quotient is 2⁵⁶ times that of the upper halves, and one bit up.
    return rounded(all_digits, exponent + 64 - 57, sign);
}

// a/b, where b is not 0.
fn double_quotient(a: Double, b: Double) -> Double {
    if (is_double_zero(a)) {
        return a;
    }
    let digits = moved_up(vec4<u32>(a.low, a.high, 0u, 0u), 75u);
    let by = moved_up(vec4<u32>(b.low, b.high, 0u, 0u), 11u).xy;
    let exponent = (a.exponent - 75) - (b.exponent - 11);
    return double_ratio(digits, false, by, exponent, a.sign ^ b.sign);
}

// √a of a number that is not negative, digit by digit.
fn double_root(a: Double) -> Double {
    if (is_double_zero(a)) {
        return a;
    }
    // 111 or 112 bits, times an even power of two.
    let is_odd = u32(a.exponent & 1);
    let exponent = a.exponent - i32(is_odd) - 58;
    var digits = moved_up(vec4<u32>(a.low, a.high, 0u, 0u), 58u + 16u + is_odd);
    var rest = vec2<u32>(0u);
    var root = vec2<u32>(0u);
    for (var i = 0u; i < 56u; i++) {
        rest = with_bit(with_bit(rest, digits.w >> 31u), (digits.w >> 30u) & 1u);
        digits = moved_up(digits, 2u);
        let trial = with_bit(with_bit(root, 0u), 1u);
        let goes = !is_below_two_words(rest, trial);
        if (goes) {
            rest = two_words_difference(rest, trial);
        }
        root = with_bit(root, u32(goes));
    }
    let left = u32(any(rest != vec2<u32>(0u)));
    let all_digits = moved_up(vec4<u32>(root, 0u, 0u), 1u) | vec4<u32>(left, 0u, 0u, 0u);
    return rounded(all_digits, exponent / 2 - 1, 0u);
}
