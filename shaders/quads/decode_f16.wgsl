// The f32 with the values of four f16, by their bits: exact, infinities and NaN included.

fn decode_four_f16(half: vec4<u32>) -> vec4<f32> {
    let sign = (half & vec4<u32>(0x8000u)) << vec4<u32>(16u);
    let magnitude = half & vec4<u32>(0x7fffu);
    // Exponent 31 becomes 255, others move from bias 15 to bias 127.
    let is_finite = magnitude < vec4<u32>(0x7c00u);
    let moved = select(magnitude | vec4<u32>(224u << 10u), magnitude + vec4<u32>(112u << 10u), is_finite) << vec4<u32>(13u);
    // A subnormal is a multiple of 2⁻²⁴, which an f32 holds as a normal number.
    let subnormal = bitcast<vec4<u32>>(vec4<f32>(magnitude) * 5.9604644775390625e-8);
    return bitcast<vec4<f32>>(sign | select(moved, subnormal, magnitude < vec4<u32>(0x0400u)));
}
