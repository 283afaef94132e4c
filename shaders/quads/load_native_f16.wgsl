// OPERAND stored as f16, four at a time, on a device with the feature SHADER_F16: the conversion is the hardware's, and exact.

@group(0) @binding(BINDING) var<storage, read> OPERAND: array<vec4<f16>>;

fn load_OPERAND(quad: u32) -> vec4<f32> {
    return vec4<f32>(OPERAND[quad]);
}
