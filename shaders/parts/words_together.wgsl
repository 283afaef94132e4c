// Words that one invocation writes: those of one word of the mask.
const WORDS_PER_INVOCATION: u32 = 16u;

fn word_in_group(lane: u32, n: u32) -> u32 {
    return lane * WORDS_PER_INVOCATION + n;
}
