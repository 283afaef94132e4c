// One of the gradients that double backward writes in 16 bits, where four neighbours straddle two
// channels: the formula of `double_input`, two values to a word.
//
// Dispatch: one workgroup per 2048 words of grad_input. Nothing runs next: grad_input is the
// result.

#import tile
#import words
#import load(x)
#import double_gradient
#import encode

// (N, C, L), laid out as x, two values to a word
@group(0) @binding(8) var<storage, read_write> grad_input: array<u32>;

// The gradient at an address, encoded. grad_output lies as x does.
fn half_at(address: u32) -> u32 {
    let coefficients = double_coefficients_of(run_at(address).channel);
    return encode(double_gradient_at(address, address, 0u, coefficients));
}

//     for the 8 words of this invocation:
//         grad_input[word] = those at two neighbouring addresses
//
// As fast as `grad_input_words`, for the same reasons.
@compute @workgroup_size(256)
fn main(
    @builtin(local_invocation_index) invocation: u32,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
) {
    let index = workgroup.x + workgroup.y * workgroups.x;
    if (!has_words(index)) {
        return;
    }
    let block = block_of(index);
    for (var n = 0u; n < WORDS_PER_INVOCATION; n++) {
        let word = word_of(invocation, block, n);
        let address = 2u * word;
        if (address + 1u < params.end_element) {
            grad_input[word] = half_at(address) | (half_at(address + 1u) << 16u);
        } else if (address < params.end_element) {
            // The other half of the last word is not the tensor's.
            grad_input[word] = half_at(address) | (grad_input[word] & 0xffff0000u);
        }
    }
}
