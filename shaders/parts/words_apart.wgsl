// Words that one invocation writes: neighbouring invocations write neighbouring words.
const WORDS_PER_INVOCATION: u32 = 8u;

fn word_in_group(lane: u32, n: u32) -> u32 {
    return n * 256u + lane;
}
