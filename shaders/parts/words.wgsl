// Writing 16-bit outputs of single values: an invocation owns whole words of two values each, which
// may be of two channels.

#import params
#import padding
#import runs

#if KEEPS_MASK
// Those of one word of the mask: eight pairs, 128 pairs from one to the next.
const WORDS_PER_INVOCATION: u32 = 16u;
#else
const WORDS_PER_INVOCATION: u32 = 8u;
#endif

// Whether the value at an address of a channel counts: not where its sample is padded.
fn is_counted(address: u32, channel: u32) -> bool {
    if (params.padded == 0u) {
        return true;
    }
    let from_sample = address + params.run_start;
    let sample = from_sample / params.x_sample;
    let in_channel = from_sample - sample * params.x_sample - channel * params.x_channel;
    return in_channel / params.x_inner < length_of(sample);
}

// Whether a workgroup has words to write.
fn has_words(workgroup: u32) -> bool {
    return workgroup * 512u * WORDS_PER_INVOCATION < params.end_element - params.first_element;
}

// Which words a workgroup has, counted in workgroups. The last one comes first, because what the
// sums read last is written first.
fn block_of(workgroup: u32) -> u32 {
    let last = (params.end_element - params.first_element - 1u) / (512u * WORDS_PER_INVOCATION);
    return last - workgroup;
}

// The n-th word of this invocation: neighbours, or neighbouring pairs, are those of neighbouring
// invocations.
fn word_of(invocation: u32, block: u32, n: u32) -> u32 {
    let first = params.first_element / 2u + block * WORDS_PER_INVOCATION * 256u;
#if KEEPS_MASK
    let pair = (invocation >> 7u) * 1024u + (invocation & 127u)
        + ((n >> 1u) & 3u) * 256u + (n >> 3u) * 128u;
    return first + 2u * pair + (n & 1u);
#else
    return first + n * 256u + invocation;
#endif
}
