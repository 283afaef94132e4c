// The f16 nearest to an f32, ties to even, by integer arithmetic: what a driver's own conversion rounds to is left open.

fn encode(value: f32) -> u32 {
    let bits = bitcast<u32>(value);
    let sign = (bits >> 16u) & 0x8000u;
    let magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) {
        return sign | 0x7e00u | ((magnitude >> 13u) & 0x03ffu);   // NaN, quiet, with the upper bits of its payload
    }
    if (magnitude >= 0x477ff000u) {
        return sign | 0x7c00u;   // 65520 and more, which is halfway to 2^16
    }
    if (magnitude >= 0x38800000u) {
        // Normal, from 2⁻¹⁴ on: bias 127 to bias 15, then half of the last place less one, one more if it is odd.
        let moved = magnitude - (112u << 23u);
        return sign | ((moved + 0x0fffu + ((moved >> 13u) & 1u)) >> 13u);
    }
    let exponent = magnitude >> 23u;
    if (exponent < 102u) {
        return sign;   // below 2⁻²⁵, half of the smallest subnormal
    }
    // Subnormal: a multiple of 2⁻²⁴.
    let significand = (magnitude & 0x007fffffu) | 0x00800000u;
    let shift = 126u - exponent;
    let floor = significand >> shift;
    let rest = significand & ((1u << shift) - 1u);
    let half = 1u << (shift - 1u);
    let up = rest > half || (rest == half && (floor & 1u) == 1u);
    return sign | (floor + select(0u, 1u, up));
}
