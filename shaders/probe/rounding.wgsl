// Asks what the device's own conversion makes of values at which rounding to f16 can go wrong: of
// every f16, of the number halfway to the next one, and of the neighbours of that.
//
// Dispatch: 256 workgroups, an invocation per f16. The answer has the four results, two to a word.

@group(0) @binding(1) var<storage, read> exact: array<u32>;     // (65536), bits of f32
@group(0) @binding(2) var<storage, read> halfway: array<u32>;   // (65536)
// (65536): of the f16 and of the number halfway; of what is next to that
@group(0) @binding(5) var<storage, read_write> answer: array<vec2<u32>>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) invocation: u32,
) {
    let at = 256u * workgroup.x + invocation;
    let tie = halfway[at];
    answer[at] = vec2<u32>(
        pack2x16float(bitcast<vec2<f32>>(vec2<u32>(exact[at], tie))),
        pack2x16float(bitcast<vec2<f32>>(vec2<u32>(tie - 1u, tie + 1u))),
    );
}
