// The f32 with the values of f16, by their bits: exact, infinities and NaN included.

#import element
#import choose_element

fn decode_f16(half: U) -> V {
    let sign = (half & U(0x8000u)) << U(16u);
    let magnitude = half & U(0x7fffu);
    // Exponent 31 becomes 255, others move from bias 15 to bias 127.
    let is_finite = magnitude < U(0x7c00u);
    let moved =
        choose_element(magnitude | U(224u << 10u), magnitude + U(112u << 10u), is_finite) << U(13u);
    // A subnormal is a multiple of 2⁻²⁴, which an f32 holds as a normal number.
    let subnormal = bitcast<U>(V(magnitude) * 5.9604644775390625e-8);
    return bitcast<V>(sign | choose_element(moved, subnormal, magnitude < U(0x0400u)));
}
