// The gradient of the input, 16-bit storage, and where it is wanted that of the residual.
//
// Dispatch: one workgroup per 2048 words of grad_input. The result is the output.

@group(0) @binding(7) var<storage, read_write> grad_input: array<u32>;   // (N, C, L) in the layout of x, two to a word

// Both gradients of an element, encoded.
fn halves_at(address: u32) -> vec2<u32> {
    let channel = channel_at(address);
    let both = gradients(pull_of(channel), address, g_address_at(address, channel), 0u);
    return vec2<u32>(encode(both.x), encode(both.y));
}

@compute @workgroup_size(256)
fn main(
    @builtin(local_invocation_index) lane: u32,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
) {
    let index = workgroup.x + workgroup.y * workgroups.x;
    if (index * 512u * WORDS_PER_INVOCATION >= params.end_element - params.first_element) {
        return;
    }
    for (var n = 0u; n < WORDS_PER_INVOCATION; n++) {
        let word = word_of(lane, index, n);
        let address = 2u * word;
        if (address + 1u < params.end_element) {
            let both = halves_at(address) | (halves_at(address + 1u) << vec2<u32>(16u));
            grad_input[word] = both.x;
            keep_residual_word(word, both.y, true);
        } else if (address < params.end_element) {
            // The other half of the last word is not the tensor's.
            let both = halves_at(address);
            grad_input[word] = both.x | (grad_input[word] & 0xffff0000u);
            keep_residual_word(word, both.y, false);
        }
    }
}
