// The bf16 nearest to each of four f32, ties to even, by integer arithmetic, in the upper halves of words.

fn encode_high(value: vec4<f32>) -> vec4<u32> {
    let bits = bitcast<vec4<u32>>(value);
    // Half of the last place less one, one more if it is odd; a carry goes into the exponent, up to infinity.
    let rounded = bits + vec4<u32>(0x7fffu) + ((bits >> vec4<u32>(16u)) & vec4<u32>(1u));
    // NaN, quiet, with the upper bits of its payload.
    let is_nan = (bits & vec4<u32>(0x7fffffffu)) > vec4<u32>(0x7f800000u);
    return select(rounded, bits | vec4<u32>(0x00400000u), is_nan) & vec4<u32>(0xffff0000u);
}

fn pack(value: vec4<f32>) -> vec2<u32> {
    let high = encode_high(value);
    return vec2<u32>((high.x >> 16u) | high.y, (high.z >> 16u) | high.w);
}
