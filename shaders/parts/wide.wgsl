// Integers of 128 bits, in words from the lowest on.

// a + b modulo 2¹²⁸.
fn plus(a: vec4<u32>, b: vec4<u32>) -> vec4<u32> {
    let x = a.x + b.x;
    let carry_x = u32(x < b.x);
    let y = a.y + b.y;
    let y_carried = y + carry_x;
    let carry_y = u32(y < b.y) + u32(y_carried < carry_x);
    let z = a.z + b.z;
    let z_carried = z + carry_y;
    let carry_z = u32(z < b.z) + u32(z_carried < carry_y);
    return vec4<u32>(x, y_carried, z_carried, a.w + b.w + carry_z);
}

// word·2^bits, where `bits` is below 64.
fn shifted(word: u32, bits: u32) -> vec4<u32> {
    let within = bits & 31u;
    let low = word << within;
    let high = (word >> 1u) >> (31u - within);
    if (bits < 32u) {
        return vec4<u32>(low, high, 0u, 0u);
    }
    return vec4<u32>(0u, low, high, 0u);
}

// (low + 2¹⁶·high)·2^bits.
fn of_halves(halves: vec2<u32>, bits: u32) -> vec4<u32> {
    return plus(shifted(halves.x, bits), shifted(halves.y, bits + 16u));
}

// −a modulo 2¹²⁸.
fn negated(a: vec4<u32>) -> vec4<u32> {
    return plus(~a, vec4<u32>(1u, 0u, 0u, 0u));
}

// a − b modulo 2¹²⁸.
fn minus(a: vec4<u32>, b: vec4<u32>) -> vec4<u32> {
    return plus(a, negated(b));
}

fn is_negative(a: vec4<u32>) -> bool {
    return (a.w >> 31u) == 1u;
}

// Whether a < b, both without a sign.
fn is_below(a: vec4<u32>, b: vec4<u32>) -> bool {
    if (a.w != b.w) {
        return a.w < b.w;
    }
    if (a.z != b.z) {
        return a.z < b.z;
    }
    if (a.y != b.y) {
        return a.y < b.y;
    }
    return a.x < b.x;
}
