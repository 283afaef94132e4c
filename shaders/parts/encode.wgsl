// The 16 bits nearest to f32 given by their bits, ties to even, by integer arithmetic: what a
// driver's own conversion rounds to is left open.

#import element
#import choose_element
#import finite

#if OUTPUT_BF16
fn encode(bits: U) -> U {
    // Half of the last place less one, one more if it is odd; a carry goes into the exponent, up to
    // infinity.
    let rounded = bits + U(0x7fffu) + ((bits >> U(16u)) & U(1u));
    // NaN, quiet, with the upper bits of its payload.
    let is_nan = (bits & U(0x7fffffffu)) > U(EXPONENT);
    return choose_element(rounded, bits | U(0x00400000u), is_nan) >> U(16u);
}
#endif

#if OUTPUT_F16
fn encode(bits: U) -> U {
    let magnitude = bits & U(0x7fffffffu);
    // Normal, from 2⁻¹⁴ on: bias 127 to bias 15, then half of the last place less one, one more if
    // it is odd.
    let odd = (magnitude >> U(13u)) & U(1u);
    let normal = (magnitude - U((112u << 23u) - 0x0fffu) + odd) >> U(13u);
    // Subnormal: a multiple of 2⁻²⁴, rounded likewise. Shifted by 25 places nothing is left.
    let significand = (magnitude & U(0x007fffffu)) | U(0x00800000u);
    let shift = min(U(126u) - min(magnitude >> U(23u), U(125u)), U(25u));
    let below_half = (U(1u) << (shift - U(1u))) - U(1u);
    let small = (significand + below_half + ((significand >> shift) & U(1u))) >> shift;
    let finite = choose_element(small, normal, magnitude >= U(0x38800000u));
    // 65520 and more, which is halfway to 2^16, is infinite; NaN is quiet, with the upper bits of
    // its payload.
    let payload = U(0x7e00u) | ((magnitude >> U(13u)) & U(0x03ffu));
    let not_finite = choose_element(U(0x7c00u), payload, magnitude > U(EXPONENT));
    let result = choose_element(finite, not_finite, magnitude >= U(0x477ff000u));
    return result | ((bits >> U(16u)) & U(0x8000u));
}
#endif
