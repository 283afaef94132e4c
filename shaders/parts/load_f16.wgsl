// OPERAND stored as f16, two to a word.

@group(0) @binding(BINDING) var<storage, read> OPERAND: array<u32>;

fn load_OPERAND(address: u32) -> f32 {
    return decode_f16((OPERAND[address >> 1u] >> ((address & 1u) << 4u)) & 0xffffu);
}
