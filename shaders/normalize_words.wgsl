// The normalized, activated output, 16-bit storage.
//
// Dispatch: one workgroup per 256·WORDS_PER_INVOCATION words of y. The result is the output.

@group(0) @binding(3) var<storage, read> centering: array<Centering>;   // (C)
@group(0) @binding(4) var<storage, read> weight: array<f32>;            // (C), or anything where has_weight is 0
@group(0) @binding(5) var<storage, read> bias: array<f32>;              // (C), or anything where has_bias is 0
@group(0) @binding(6) var<storage, read_write> y: array<u32>;           // (N, C, L) in the layout of x, two to a word

// v of an element.
fn value_of(address: u32) -> f32 {
    let channel = channel_at(address);
    return value_at(address, line_of(centering[channel], channel));
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
    var sides = 0u;
    for (var n = 0u; n < WORDS_PER_INVOCATION; n++) {
        let word = word_of(lane, index, n);
        let address = 2u * word;
        if (address + 1u < params.end_element) {
            let low = value_of(address);
            let high = value_of(address + 1u);
            sides |= (select(0u, 1u, low > 0.0) | select(0u, 2u, high > 0.0)) << (2u * n);
            y[word] = encode(activated(low)) | (encode(activated(high)) << 16u);
        } else if (address < params.end_element) {
            // The other half of the last word is not the tensor's.
            let low = value_of(address);
            sides |= select(0u, 1u, low > 0.0) << (2u * n);
            y[word] = encode(activated(low)) | (y[word] & 0xffff0000u);
        }
    }
    let first = 2u * word_of(lane, index, 0u);
    if (first < params.end_element) {
        keep_sides_of(first, sides);
    }
}
