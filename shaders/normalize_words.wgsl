// The normalized, activated output in 16 bits, where four neighbours straddle two channels: the
// formula of `normalize`, two values to a word.
//
// Dispatch: one workgroup per 256·WORDS_PER_INVOCATION words of y. Nothing runs next: y is the
// result.

#import words
#import load(x)
#import load(residual)
#import centering
#import affine
#import activation
#import encode

@group(0) @binding(3) var<storage, read> centering: array<Centering>;   // (C)
@group(0) @binding(4) var<storage, read> weight: array<f32>;            // (C), or a dummy
@group(0) @binding(5) var<storage, read> bias: array<f32>;              // (C), or a dummy
// (N, C, L), laid out as x, two values to a word
@group(0) @binding(6) var<storage, read_write> y: array<u32>;
#if KEEPS_MASK
#import mask_by_address

// 32 values to a word
@group(0) @binding(7) var<storage, read_write> mask: array<u32>;
#endif

// The bits of v at an address; 0, of which every activation makes 0, where it does not count.
fn value_at(address: u32) -> u32 {
    let channel = run_at(address).channel;
    if (!is_counted(address, channel)) {
        return 0u;
    }
    return value_of(load_x(address), address, affine_of(channel));
}

//     for the words of this invocation, 8, or 16 with a mask:
//         (low, high) = v at two neighbouring addresses, whose channels may differ
//         y[word]     = act(low), act(high), rounded to 16 bits
//         noted       = noted, with two bits
//     mask         = noted
//
// Why it is as fast as it gets without quads: an invocation owns whole words, so nothing is atomic
// and only the last word of a tensor is read before it is written. Neighbouring invocations own
// neighbouring words, or pairs of them, so loads and stores coalesce. A value costs a division, for
// its channel, and a load of its coefficients, which a cache has: neighbours are mostly of one
// channel.
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
    var noted = 0u;
    for (var n = 0u; n < WORDS_PER_INVOCATION; n++) {
        let word = word_of(invocation, block, n);
        let address = 2u * word;
        if (address + 1u < params.end_element) {
            let low = value_at(address);
            let high = value_at(address + 1u);
            noted |= (u32(is_active(low)) | (u32(is_active(high)) << 1u)) << (2u * n);
            y[word] = encode(activated(low)) | (encode(activated(high)) << 16u);
        } else if (address < params.end_element) {
            // The other half of the last word is not the tensor's.
            let low = value_at(address);
            noted |= u32(is_active(low)) << (2u * n);
            y[word] = encode(activated(low)) | (y[word] & 0xffff0000u);
        }
    }
#if KEEPS_MASK
    if (2u * word_of(invocation, block, 0u) < params.end_element) {
        mask[params.mask_origin + block * 2u * MASK_WORDS + invocation] = noted;
    }
#endif
}
