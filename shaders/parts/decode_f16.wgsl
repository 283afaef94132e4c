// The f32 with the values of f16, by their bits: exact, infinities and NaN included. Normal numbers
// and zeros are computed for all values of an element, the rest where one of them needs it.

#import element
#import choose_element

fn decode_f16(half: U) -> V {
    let sign = (half & U(0x8000u)) << U(16u);
    let magnitude = half & U(0x7fffu);
    // An f32 with the same exponent bits is 2¹¹² times too small: bias 127 in place of bias 15.
    var bits = bitcast<U>(bitcast<V>(magnitude << U(13u)) * 5.192296858534828e33);
    let is_rare = (magnitude != U(0u)) & ((magnitude - U(0x0400u)) >= U(0x7800u));
    if (any(is_rare)) {
        // A subnormal is a multiple of 2⁻²⁴, which an f32 holds as a normal number.
        let subnormal = bitcast<U>(V(magnitude) * 5.9604644775390625e-8);
        // Exponent 31 becomes 255.
        let not_finite = (magnitude | U(224u << 10u)) << U(13u);
        let rare = choose_element(subnormal, not_finite, magnitude >= U(0x7c00u));
        bits = choose_element(bits, rare, is_rare);
    }
    return bitcast<V>(sign | bits);
}
