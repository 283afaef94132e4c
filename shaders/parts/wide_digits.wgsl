// Digits of integers of 128 bits: shifts, leading zeros, and products of words.

// a·2^bits modulo 2¹²⁸, where `bits` is below 128.
fn moved_up(a: vec4<u32>, bits: u32) -> vec4<u32> {
    var v = a;
    if ((bits & 64u) != 0u) {
        v = vec4<u32>(0u, 0u, v.x, v.y);
    }
    if ((bits & 32u) != 0u) {
        v = vec4<u32>(0u, v.x, v.y, v.z);
    }
    let within = vec4<u32>(bits & 31u);
    let below = vec4<u32>(0u, v.x, v.y, v.z) >> vec4<u32>(1u);
    return (v << within) | (below >> (vec4<u32>(31u) - within));
}

// a/2^bits, rounded down, where `bits` is below 128.
fn moved_down(a: vec4<u32>, bits: u32) -> vec4<u32> {
    var v = a;
    if ((bits & 64u) != 0u) {
        v = vec4<u32>(v.z, v.w, 0u, 0u);
    }
    if ((bits & 32u) != 0u) {
        v = vec4<u32>(v.y, v.z, v.w, 0u);
    }
    let within = vec4<u32>(bits & 31u);
    let above = vec4<u32>(v.y, v.z, v.w, 0u) << vec4<u32>(1u);
    return (v >> within) | (above << (vec4<u32>(31u) - within));
}

fn leading_zeros(a: vec4<u32>) -> u32 {
    if (a.w != 0u) {
        return countLeadingZeros(a.w);
    }
    if (a.z != 0u) {
        return 32u + countLeadingZeros(a.z);
    }
    if (a.y != 0u) {
        return 64u + countLeadingZeros(a.y);
    }
    return 96u + countLeadingZeros(a.x);
}

// Upper words of the products of words.
fn upper_of_products(a: vec4<u32>, b: vec4<u32>) -> vec4<u32> {
    let half = vec4<u32>(0xffffu);
    let sixteen = vec4<u32>(16u);
    let low = (a & half) * (b & half);
    let one = (a >> sixteen) * (b & half) + (low >> sixteen);
    let other = (a & half) * (b >> sixteen) + (one & half);
    return (a >> sixteen) * (b >> sixteen) + (one >> sixteen) + (other >> sixteen);
}
