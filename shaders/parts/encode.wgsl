// The 16 bits nearest to a f32 given by its bits, ties to even, by integer arithmetic, because WGSL
// leaves the rounding of a driver's own conversion open. Steps that nearly every value needs are
// computed for all. The others are behind a branch, taken if a value of the element is rare. Zeros
// are common.

#import element
#import choose_element
#import finite

#if OUTPUT_BF16
fn encode(bits: U) -> U {
    // Half of the last place less one, one more if it is odd; a carry goes into the exponent, up to
    // infinity.
    var rounded = bits + U(0x7fffu) + ((bits >> U(16u)) & U(1u));
    let is_nan = (bits & U(0x7fffffffu)) > U(EXPONENT);
    if (any(is_nan)) {
        // Quiet, with the upper bits of its payload.
        rounded = choose_element(rounded, bits | U(0x00400000u), is_nan);
    }
    return rounded >> U(16u);
}
#endif

#if OUTPUT_F16
// A value that is not 0 and below 2⁻¹⁴, or 2¹⁶ and more, by the bits of its magnitude; without its
// sign.
fn encode_rare(magnitude: U) -> U {
    // A multiple of 2⁻²⁴. Shifted by 25 places nothing is left.
    let significand = (magnitude & U(0x007fffffu)) | U(0x00800000u);
    let shift = min(U(126u) - min(magnitude >> U(23u), U(125u)), U(25u));
    let below_half = (U(1u) << (shift - U(1u))) - U(1u);
    let small = (significand + below_half + ((significand >> shift) & U(1u))) >> shift;
    // Infinity, and NaN, quiet, with the upper bits of its payload.
    let payload = U(0x7e00u) | ((magnitude >> U(13u)) & U(0x03ffu));
    let large = choose_element(U(0x7c00u), payload, magnitude > U(EXPONENT));
    return choose_element(small, large, magnitude >= U(0x47800000u));
}

fn encode(bits: U) -> U {
    // Half of the last place less one, one more if it is odd; a carry goes into the exponent: from
    // 65520 on, halfway to 2¹⁶, to that of infinity.
    let rounded = bits + U(0x0fffu) + ((bits >> U(13u)) & U(1u));
    // Sign and exponent's first bit, then its last four: from 2⁻¹⁴ on and up to 2¹⁶ the three in
    // between say nothing, so bias 127 becomes bias 15. A zero stays one.
    let usual = ((rounded >> U(16u)) & U(0xc000u)) | ((rounded >> U(13u)) & U(0x3fffu));
    let magnitude = bits & U(0x7fffffffu);
    let is_rare = (magnitude != U(0u)) & ((magnitude - U(0x38800000u)) >= U(0x0f000000u));
    if (any(is_rare)) {
        let rare = encode_rare(magnitude) | ((bits >> U(16u)) & U(0x8000u));
        return choose_element(usual, rare, is_rare);
    }
    return usual;
}
#endif
