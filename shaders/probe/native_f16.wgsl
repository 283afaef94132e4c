// Asks what the device's own loads make of f16, one at a time and four at a time.
//
// Dispatch: 1 workgroup. The answer is the f32 of every value, by its bits.

enable f16;

@group(0) @binding(1) var<storage, read> singles: array<f16>;             // (256)
@group(0) @binding(2) var<storage, read> quads: array<vec4<f16>>;         // (64), the same values
@group(0) @binding(5) var<storage, read_write> answer: array<vec2<u32>>;  // (256), by a single load and by that of a quad

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) lane: u32) {
    let quad = vec4<f32>(quads[lane / 4u]);
    answer[lane] = vec2<u32>(bitcast<u32>(f32(singles[lane])), bitcast<u32>(quad[lane % 4u]));
}
