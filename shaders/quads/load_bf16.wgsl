// OPERAND stored as bf16, four in two words: the upper halves of f32.

@group(0) @binding(BINDING) var<storage, read> OPERAND: array<vec2<u32>>;

fn load_OPERAND(quad: u32) -> vec4<f32> {
    let words = OPERAND[quad];
    return bitcast<vec4<f32>>(vec4<u32>(words.x << 16u, words.x & 0xffff0000u, words.y << 16u, words.y & 0xffff0000u));
}
