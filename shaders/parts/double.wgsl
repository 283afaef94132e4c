// f64 in words of 32 bits, as IEEE 754 rounds it: to nearest, ties to even. So the device makes of
// its sums what the host makes of them, bit by bit.
//
// All of it is integers: no compiler may change one. Exponents have no bounds, so nothing overflows
// or loses digits. NaN and infinity have no form here: the caller handles them.

#import wide
#import wide_digits

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
