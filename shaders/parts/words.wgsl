// Writing 16-bit outputs: an invocation owns whole words, two elements each, of which a word may hold two channels.

// Words that one invocation writes.
const WORDS_PER_INVOCATION: u32 = 8u;

// Which value an address of x belongs to.
struct Element {
    sample: u32,
    channel: u32,
    inner: u32,
}

fn element_at(address: u32) -> Element {
    var element: Element;
    element.sample = address / params.x_sample;
    let rest = address - element.sample * params.x_sample;
    // The larger of the two remaining strides goes first.
    if (params.x_channel >= params.x_inner) {
        element.channel = rest / params.x_channel;
        element.inner = rest - element.channel * params.x_channel;
    } else {
        element.inner = rest / params.x_inner;
        element.channel = rest - element.inner * params.x_inner;
    }
    return element;
}

// The n-th word of this invocation: neighbouring invocations write neighbouring words. The last workgroup comes first,
// because what the sums read last is written first.
fn word_of(lane: u32, workgroup: u32, n: u32) -> u32 {
    let last = (params.elements - 1u) / (512u * WORDS_PER_INVOCATION);
    return ((last - workgroup) * WORDS_PER_INVOCATION + n) * 256u + lane;
}
