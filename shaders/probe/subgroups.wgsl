// Asks whether a workgroup is cut into whole subgroups of one size, in which shuffles reach the
// neighbours by number.
//
// Dispatch: 2 workgroups. Every invocation answers with its number, counted subgroup by subgroup as
// the kernels that merge lanes count it, and with what the invocations at distance 1, 2 and 3 hold.

// (2 workgroups, 256 invocations, 4)
@group(0) @binding(5) var<storage, read_write> answer: array<vec4<u32>>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) invocation: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_size) size: u32,
    @builtin(subgroup_invocation_id) subgroup_invocation: u32,
) {
    let number = subgroup * size + subgroup_invocation;
    // Four f32, as lanes hold; the host knows each by its number.
    let held = vec4<f32>(f32(number)) + vec4<f32>(0.0, 256.0, 512.0, 768.0);
    let first = subgroupShuffleXor(held, 1u);
    let second = subgroupShuffleXor(held, 2u);
    let third = subgroupShuffleXor(held, 3u);
    let at = 4u * (256u * workgroup.x + invocation);
    answer[at] = vec4<u32>(number, size, subgroup_invocation, invocation);
    answer[at + 1u] = vec4<u32>(first);
    answer[at + 2u] = vec4<u32>(second);
    answer[at + 3u] = vec4<u32>(third);
}
