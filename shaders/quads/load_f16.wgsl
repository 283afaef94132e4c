// OPERAND stored as f16, four in two words.

@group(0) @binding(BINDING) var<storage, read> OPERAND: array<vec2<u32>>;

fn load_OPERAND(quad: u32) -> vec4<f32> {
    let words = OPERAND[quad];
    return decode_four_f16(vec4<u32>(words.x & 0xffffu, words.x >> 16u, words.y & 0xffffu, words.y >> 16u));
}
