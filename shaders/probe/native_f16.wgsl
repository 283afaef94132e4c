// Asks what the device's own loads make of every f16, one at a time and four at a time.
//
// Dispatch: 256 workgroups, an invocation per value. The answer is the f32 of every value, by its
// bits.

enable f16;

@group(0) @binding(1) var<storage, read> singles: array<f16>;        // (65536)
@group(0) @binding(2) var<storage, read> quads: array<vec4<f16>>;    // (16384), the same values
// (65536), by a single load and by that of a quad
@group(0) @binding(5) var<storage, read_write> answer: array<vec2<u32>>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) invocation: u32,
) {
    let at = 256u * workgroup.x + invocation;
    let quad = vec4<f32>(quads[at / 4u]);
    answer[at] = vec2<u32>(bitcast<u32>(f32(singles[at])), bitcast<u32>(quad[at % 4u]));
}
