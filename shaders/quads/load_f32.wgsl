// OPERAND stored as f32, four at a time.

@group(0) @binding(BINDING) var<storage, read> OPERAND: array<vec4<f32>>;

fn load_OPERAND(quad: u32) -> vec4<f32> {
    return OPERAND[quad];
}
