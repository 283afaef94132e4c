// OPERAND stored as f32.

@group(0) @binding(BINDING) var<storage, read> OPERAND: array<f32>;

fn load_OPERAND(address: u32) -> f32 {
    return OPERAND[address];
}
