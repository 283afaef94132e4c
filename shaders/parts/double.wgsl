// f64 in words of 32 bits, as IEEE 754 rounds it: to nearest, ties to even. So the device makes of
// its sums what the host makes of them, bit by bit.
//
// All of it is integers: no compiler may change one. Exponents have no bounds, so nothing overflows
// or loses digits. NaN and infinity have no form here: who calls keeps them apart.

#import wide

// ±(2³²·high + low)·2^exponent, 53 bits with the highest set; or 0, without a sign.
struct Double {
    sign: u32,            // the highest bit of a word, or 0
    exponent: i32,
    high: u32,
    low: u32,
}

const ZERO_DOUBLE: Double = Double(0u, 0, 0u, 0u);
const ONE_DOUBLE: Double = Double(0u, -52, 0x100000u, 0u);

fn is_double_zero(a: Double) -> bool {
    return (a.high | a.low) == 0u;
}

// words·2^exponent. The lowest bit may stand for all that is below it, if a bit beyond 2⁵⁴ is set.
fn rounded(words: vec4<u32>, exponent: i32, sign: u32) -> Double {
    if (all(words == vec4<u32>(0u))) {
        return ZERO_DOUBLE;
    }
    let up = leading_zeros(words);
    let v = moved_up(words, up);
    var high = v.w >> 11u;
    var low = (v.w << 21u) | (v.z >> 11u);
    let beyond = (v.z & 0x3ffu) | v.y | v.x;
    let is_up = (v.z & 0x400u) != 0u && (beyond != 0u || (low & 1u) == 1u);
    var by = exponent + 75 - i32(up);
    low += u32(is_up);
    high += u32(is_up && low == 0u);
    if (high == 0x200000u) {
        high = 0x100000u;
        by++;
    }
    return Double(sign, by, high, low);
}

// An integer of 128 bits with a sign, times 2^exponent.
fn double_of_integer(a: vec4<u32>, exponent: i32) -> Double {
    if (is_negative(a)) {
        return rounded(negated(a), exponent, 0x80000000u);
    }
    return rounded(a, exponent, 0u);
}

// A f32 from its bits; finite.
fn double_of_f32(bits: u32) -> Double {
    let exponent = (bits >> 23u) & 0xffu;
    let digits = (bits & 0x7fffffu) | (u32(exponent != 0u) << 23u);
    let from_lowest = i32(max(exponent, 1u)) - 150;
    return rounded(vec4<u32>(digits, 0u, 0u, 0u), from_lowest, bits & 0x80000000u);
}

// A f64 from its bits, the lower word first; finite.
fn double_of_bits(low: u32, high: u32) -> Double {
    let exponent = (high >> 20u) & 0x7ffu;
    let digits = (high & 0xfffffu) | (u32(exponent != 0u) << 20u);
    let from_lowest = i32(max(exponent, 1u)) - 1075;
    return rounded(vec4<u32>(low, digits, 0u, 0u), from_lowest, high & 0x80000000u);
}

// The bits of the nearest f32, subnormal numbers and infinity among them.
fn f32_of(a: Double) -> u32 {
    if (is_double_zero(a)) {
        return 0u;
    }
    let highest = a.exponent + 52;
    if (highest > 127) {
        return a.sign | 0x7f800000u;
    }
    // Digits below the lowest of the f32.
    let cut = u32(29 + max(-126 - highest, 0));
    if (cut > 54u) {
        return a.sign;
    }
    let v = moved_up(vec4<u32>(a.low, a.high, 0u, 0u), 64u - cut);
    let is_up = (v.y >> 31u) == 1u && ((v.y << 1u) != 0u || v.x != 0u || (v.z & 1u) == 1u);
    let digits = v.z + u32(is_up);
    // The hidden digit, or a carry, adds to the exponent.
    return a.sign | ((u32(max(highest, -126) + 126) << 23u) + digits);
}

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
    let apart = u32(larger.exponent - smaller.exponent);
    // 64 bits up, so that beyond them the smaller one only tells on which side of a tie the sum is.
    let one = vec4<u32>(0u, 0u, larger.low, larger.high);
    var other = vec4<u32>(1u, 0u, 0u, 0u);
    if (apart <= 64u) {
        other = moved_up(vec4<u32>(smaller.low, smaller.high, 0u, 0u), 64u - apart);
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
