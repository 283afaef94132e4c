// The gradient of the input in 16 bits, where four neighbours straddle two channels, and where it
// is wanted that of the residual: the formula of `grad_input`, two values to a word.
//
// Dispatch: one workgroup per 2048 words of grad_input. Nothing runs next: grad_input and
// grad_residual are the result.

#import tile
#import words
#import load(x)
#import gradient
#import encode

// (N, C, L), laid out as x, two values to a word
@group(0) @binding(7) var<storage, read_write> grad_input: array<u32>;
#if GRAD_RESIDUAL
// (N, C, L), laid out as x, two values to a word
@group(0) @binding(8) var<storage, read_write> grad_residual: array<u32>;
#endif

// Where grad_output has the value that x has at an address of the given channel.
fn g_address_at(address: u32, channel: u32) -> u32 {
    if (params.same_layout != 0u) {
        return address;
    }
    let from_first = address - params.first_element;
    let sample = from_first / params.x_sample;
    let inner =
        (from_first - sample * params.x_sample - channel * params.x_channel) / params.x_inner;
    return g_address(sample, channel, inner);
}

// The gradients of the input and of the residual at an address, encoded.
fn halves_at(address: u32) -> vec2<u32> {
    let channel = run_at(address).channel;
    if (!is_counted(address, channel)) {
        return vec2<u32>(0u);
    }
    let coefficients = grad_coefficients_of(channel);
    let x = x_of_gradient(address);
    let g = upstream(x, address, g_address_at(address, channel), 0u, coefficients.affine);
    return vec2<u32>(encode(gradient_of(x, g, coefficients)), encode(bitcast<u32>(g)));
}

//     for the 8 words of this invocation:
//         grad_input[word], grad_residual[word] = those at two neighbouring addresses
//
// As fast as `normalize_words`, for the same reasons: whole words, neighbouring words in
// neighbouring invocations, a division per value for its channel. grad_output of another layout
// than x costs two more.
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
            let both = halves_at(address) | (halves_at(address + 1u) << vec2<u32>(16u));
            grad_input[word] = both.x;
#if GRAD_RESIDUAL
            grad_residual[word] = both.y;
#endif
        } else if (address < params.end_element) {
            // The other half of the last word is not the tensor's.
            let both = halves_at(address);
            grad_input[word] = both.x | (grad_input[word] & 0xffff0000u);
#if GRAD_RESIDUAL
            grad_residual[word] = both.y | (grad_residual[word] & 0xffff0000u);
#endif
        }
    }
}
