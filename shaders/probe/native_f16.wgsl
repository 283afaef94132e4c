// Asks what the device's own conversion makes of every f16, of one at a time and of four.
//
// Dispatch: 256 workgroups, an invocation per value. The answer is the f32 of every value, by its
// bits.

@group(0) @binding(1) var<storage, read> singles: array<u32>;        // (32768), two to a word
@group(0) @binding(2) var<storage, read> quads: array<vec2<u32>>;    // (16384), the same values
// (65536), alone and as one of a quad
@group(0) @binding(5) var<storage, read_write> answer: array<vec2<u32>>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) invocation: u32,
) {
    let at = 256u * workgroup.x + invocation;
    let single = unpack2x16float(singles[at >> 1u] >> ((at & 1u) << 4u)).x;
    let words = quads[at / 4u];
    let quad = vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y));
    answer[at] = vec2<u32>(bitcast<u32>(single), bitcast<u32>(quad[at % 4u]));
}
