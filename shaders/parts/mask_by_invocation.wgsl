// A mask of the activation as lanes walk, a bit per value, 1 where it was active (v above 0). A word
// holds 32 values of one lane of a kernel that writes. Nobody else writes a lane's word, so nothing
// is atomic.

#import element
#import params
#import choose

#if QUADS
alias MaskWord = vec2<u32>;   // the first 8 elements of a lane, then 8 more
#else
alias MaskWord = u32;
#endif

// The word of an invocation: (tiles, blocks of channels, 256).
fn mask_word_of(tile: u32, channel: u32, invocation: u32) -> u32 {
    return (tile * params.mask_blocks + (channel >> params.tiles_per_workgroup_log2)) * 256u
        + invocation;
}

// Adds the bits of a lane's next element to its word.
fn note_active(word: ptr<function, MaskWord>, is_active: B, step: u32) {
#if QUADS
    let each = U(is_active) * U(1u, 2u, 4u, 8u);
    let bits = ((each.x | each.y) | (each.z | each.w)) << (4u * (step & 7u));
    *word |= MaskWord(choose(bits, 0u, step >= 8u), choose(0u, bits, step >= 8u));
#else
    *word |= u32(is_active) << step;
#endif
}

// The bits of an element in the word of a lane.
fn noted_active(word: MaskWord, step: u32) -> B {
#if QUADS
    let bits = choose(word.x, word.y, step >= 8u) >> (4u * (step & 7u));
    return (U(bits) & U(1u, 2u, 4u, 8u)) != U(0u);
#else
    return ((word >> step) & 1u) != 0u;
#endif
}
