// A mask of the activation in the order of addresses, a bit per value, 1 where it was active (v
// above 0). 8192 neighbours in memory, which are 2048 quads, have 256 words: word i holds the quads
// i, i + 256, i + 512 … of them, eight in all. So neighbouring invocations write neighbouring
// quads, or pairs of words, and own neighbouring words of the mask. Nothing is atomic.
//
//     a    = address + params.mask_offset             from the beginning of 8192 values on
//     word = params.mask_origin + 256·(a / 8192) + (a / 4) mod 256
//     bit  = 4·((a / 1024) mod 8) + a mod 4

#import element
#import params

// Words of the mask that one workgroup owns, and 8192 values have.
const MASK_WORDS: u32 = 256u;

// The word of the element at an address, in elements.
fn mask_word_at(address: u32) -> u32 {
    let at = address + params.mask_offset;
#if QUADS
    return params.mask_origin + (at >> 11u) * MASK_WORDS + (at & (MASK_WORDS - 1u));
#else
    return params.mask_origin + (at >> 13u) * MASK_WORDS + ((at >> 2u) & (MASK_WORDS - 1u));
#endif
}

// Which values of the element at an address were active, by its word.
fn active_at(address: u32, word: u32) -> B {
    let at = address + params.mask_offset;
#if QUADS
    return (U(word >> (4u * ((at >> 8u) & 7u))) & U(1u, 2u, 4u, 8u)) != U(0u);
#else
    return ((word >> (4u * ((at >> 10u) & 7u) + (at & 3u))) & 1u) != 0u;
#endif
}

#if QUADS
// The bits of four quads of one word, the first one's lowest.
fn noted_of(a: B, b: B, c: B, d: B) -> u32 {
    let bits = (U(a) | (U(b) << U(4u))) | ((U(c) << U(8u)) | (U(d) << U(12u)));
    return (bits.x | (bits.y << 1u)) | ((bits.z << 2u) | (bits.w << 3u));
}
#endif
