// The f32 with the value of an f16, by its bits: exact, infinities and NaN included.

fn decode_f16(half: u32) -> f32 {
    let sign = (half & 0x8000u) << 16u;
    let magnitude = half & 0x7fffu;
    // Exponent 31 becomes 255, others move from bias 15 to bias 127.
    let moved = select(magnitude + (112u << 10u), magnitude | (224u << 10u), magnitude >= 0x7c00u) << 13u;
    // A subnormal is a multiple of 2⁻²⁴, which an f32 holds as a normal number.
    let subnormal = bitcast<u32>(f32(magnitude) * 5.9604644775390625e-8);
    return bitcast<f32>(sign | select(moved, subnormal, magnitude < 0x0400u));
}
