// The gradient of the input, 16-bit storage.
//
// Dispatch: one workgroup per 2048 words of grad_input. The result is the output.

@group(0) @binding(5) var<storage, read_write> grad_input: array<u32>;   // (N, C, L) in the layout of x, two to a word

fn half_at(address: u32) -> u32 {
    let element = element_at(address);
    let g_at = g_address(element.sample, element.channel, element.inner);
    return encode(gradient(element.channel, address, g_at));
}

@compute @workgroup_size(256)
fn main(
    @builtin(local_invocation_index) lane: u32,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
) {
    let index = workgroup.x + workgroup.y * workgroups.x;
    if (index * 512u * WORDS_PER_INVOCATION >= params.elements) {
        return;
    }
    for (var n = 0u; n < WORDS_PER_INVOCATION; n++) {
        let word = word_of(lane, index, n);
        let address = 2u * word;
        if (address + 1u < params.elements) {
            grad_input[word] = half_at(address) | (half_at(address + 1u) << 16u);
        } else if (address < params.elements) {
            // The other half of the last word is not the tensor's.
            grad_input[word] = half_at(address) | (grad_input[word] & 0xffff0000u);
        }
    }
}
