// OPERAND stored as f16, on a device with the feature SHADER_F16: the conversion is the hardware's, and exact.

@group(0) @binding(BINDING) var<storage, read> OPERAND: array<f16>;

fn load_OPERAND(address: u32) -> f32 {
    return f32(OPERAND[address]);
}
