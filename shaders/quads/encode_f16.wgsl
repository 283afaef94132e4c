// The f16 nearest to each of four f32, ties to even, by integer arithmetic: what a driver's own conversion rounds to is left
// open.

fn encode(value: vec4<f32>) -> vec4<u32> {
    let bits = bitcast<vec4<u32>>(value);
    let magnitude = bits & vec4<u32>(0x7fffffffu);
    // Normal, from 2⁻¹⁴ on: bias 127 to bias 15, then half of the last place less one, one more if it is odd.
    let odd = (magnitude >> vec4<u32>(13u)) & vec4<u32>(1u);
    let normal = (magnitude - vec4<u32>((112u << 23u) - 0x0fffu) + odd) >> vec4<u32>(13u);
    // Subnormal: a multiple of 2⁻²⁴, rounded likewise. Shifted by 25 places nothing is left.
    let significand = (magnitude & vec4<u32>(0x007fffffu)) | vec4<u32>(0x00800000u);
    let shift = min(vec4<u32>(126u) - min(magnitude >> vec4<u32>(23u), vec4<u32>(125u)), vec4<u32>(25u));
    let below_half = (vec4<u32>(1u) << (shift - vec4<u32>(1u))) - vec4<u32>(1u);
    let small = (significand + below_half + ((significand >> shift) & vec4<u32>(1u))) >> shift;
    let finite = select(small, normal, magnitude >= vec4<u32>(0x38800000u));
    // 65520 and more, which is halfway to 2^16, is infinite; NaN is quiet, with the upper bits of its payload.
    let payload = vec4<u32>(0x7e00u) | ((magnitude >> vec4<u32>(13u)) & vec4<u32>(0x03ffu));
    let not_finite = select(vec4<u32>(0x7c00u), payload, magnitude > vec4<u32>(0x7f800000u));
    let result = select(finite, not_finite, magnitude >= vec4<u32>(0x477ff000u));
    return result | ((bits >> vec4<u32>(16u)) & vec4<u32>(0x8000u));
}

fn pack(value: vec4<f32>) -> vec2<u32> {
    let halves = encode(value);
    return vec2<u32>(halves.x | (halves.y << 16u), halves.z | (halves.w << 16u));
}
