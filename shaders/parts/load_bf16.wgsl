// OPERAND stored as bf16, two to a word: the upper halves of f32.

@group(0) @binding(BINDING) var<storage, read> OPERAND: array<u32>;

fn load_OPERAND(address: u32) -> f32 {
    return bitcast<f32>((OPERAND[address >> 1u] >> ((address & 1u) << 4u)) << 16u);
}
