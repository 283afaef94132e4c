// Writing 16-bit outputs: an invocation owns whole words, two elements each, of which a word may hold two channels.

// The channel of an element: `run` neighbours in memory are of one channel.
fn channel_at(address: u32) -> u32 {
    if (address < params.run_end) {
        return params.run_channel;
    }
    return (params.run_channel + 1u + (address - params.run_end) / params.run) % params.channels;
}

// Where grad_output has the value that x has at an address of the given channel.
fn g_address_at(address: u32, channel: u32) -> u32 {
    if (params.g_follows_x != 0u) {
        return address;
    }
    let from_first = address - params.first_element;
    let sample = from_first / params.x_sample;
    let inner = (from_first - sample * params.x_sample - channel * params.x_channel) / params.x_inner;
    return g_address(sample, channel, inner);
}

// The n-th word of this invocation. The last workgroup comes first, because what the sums read last is written first.
fn word_of(lane: u32, workgroup: u32, n: u32) -> u32 {
    let last = (params.end_element - params.first_element - 1u) / (512u * WORDS_PER_INVOCATION);
    return params.first_element / 2u + (last - workgroup) * WORDS_PER_INVOCATION * 256u + word_in_group(lane, n);
}
