// Integers of 256 bits, in two's complement where they have a sign: they hold what sums multiply
// to.

#import wide
#import wide_digits

struct Long {
    low: vec4<u32>,       // words from the lowest on
    high: vec4<u32>,
}

// An integer of 128 bits with a sign.
fn long_of(a: vec4<u32>) -> Long {
    return Long(a, vec4<u32>(0u - (a.w >> 31u)));
}

fn long_sum(a: Long, b: Long) -> Long {
    let low = plus(a.low, b.low);
    let carry = u32(is_below(low, a.low));
    return Long(low, plus(plus(a.high, b.high), vec4<u32>(carry, 0u, 0u, 0u)));
}

fn long_negated(a: Long) -> Long {
    return long_sum(Long(~a.low, ~a.high), Long(vec4<u32>(1u, 0u, 0u, 0u), vec4<u32>(0u)));
}

fn long_difference(a: Long, b: Long) -> Long {
    return long_sum(a, long_negated(b));
}

fn is_long_negative(a: Long) -> bool {
    return is_negative(a.high);
}

// a·2³².
fn word_up(a: Long) -> Long {
    return Long(
        vec4<u32>(0u, a.low.x, a.low.y, a.low.z),
        vec4<u32>(a.low.w, a.high.x, a.high.y, a.high.z),
    );
}

// a·word, also where a has a sign.
fn long_times(a: Long, word: u32) -> Long {
    let by = vec4<u32>(word);
    let upper = Long(upper_of_products(a.low, by), upper_of_products(a.high, by));
    return long_sum(Long(a.low * by, a.high * by), word_up(upper));
}

// a² of an integer below 2⁹⁶ without a sign.
fn long_square(a: vec4<u32>) -> Long {
    let one = Long(a, vec4<u32>(0u));
    let upper = long_sum(long_times(one, a.y), word_up(long_times(one, a.z)));
    return long_sum(long_times(one, a.x), word_up(upper));
}

// a·2^bits modulo 2²⁵⁶, where `bits` is below 256.
fn long_moved_up(a: Long, bits: u32) -> Long {
    var v = a;
    if ((bits & 128u) != 0u) {
        v = Long(vec4<u32>(0u), v.low);
    }
    let within = bits & 127u;
    if (within == 0u) {
        return v;
    }
    // Bits that leave the low half.
    let left = moved_down(v.low, 128u - within);
    return Long(moved_up(v.low, within), moved_up(v.high, within) | left);
}

fn long_leading_zeros(a: Long) -> u32 {
    if (all(a.high == vec4<u32>(0u))) {
        return 128u + leading_zeros(a.low);
    }
    return leading_zeros(a.high);
}
