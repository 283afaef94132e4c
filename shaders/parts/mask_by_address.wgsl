// A mask of the activation in the order of addresses, a bit per value, 1 where it was active (v
// above 0). 4096 neighbours in memory, which are 1024 quads, have 128 words: word i holds the quads
// i, i + 128, i + 256 … of them, eight in all. So neighbouring invocations that own words of the
// mask have neighbouring quads of outputs.
//
//     a    = address + params.mask_offset             from the beginning of 4096 values on
//     word = params.mask_origin + 128·(a / 4096) + (a / 4) mod 128
//     bit  = 16·((a / 512) mod 2) + 4·((a / 1024) mod 4) + a mod 4

#import element
#import params

// Words that 4096 values have.
const MASK_WORDS: u32 = 128u;

// The word of the element at an address, in elements.
fn mask_word_at(address: u32) -> u32 {
    let at = address + params.mask_offset;
#if QUADS
    return params.mask_origin + (at >> 10u) * MASK_WORDS + (at & (MASK_WORDS - 1u));
#else
    return params.mask_origin + (at >> 12u) * MASK_WORDS + ((at >> 2u) & (MASK_WORDS - 1u));
#endif
}

// Which values of the element at an address were active, by its word.
fn active_at(address: u32, word: u32) -> B {
    let at = address + params.mask_offset;
#if QUADS
    let lowest = 16u * ((at >> 7u) & 1u) + 4u * ((at >> 8u) & 3u);
    return (U(word >> lowest) & U(1u, 2u, 4u, 8u)) != U(0u);
#else
    let lowest = 16u * ((at >> 9u) & 1u) + 4u * ((at >> 10u) & 3u);
    return ((word >> (lowest + (at & 3u))) & 1u) != 0u;
#endif
}

#if QUADS
// The bits of four quads, 256 quads from one to the next: 16, the first one's lowest.
fn noted_of(a: B, b: B, c: B, d: B) -> u32 {
    let bits = (U(a) | (U(b) << U(4u))) | ((U(c) << U(8u)) | (U(d) << U(12u)));
    return (bits.x | (bits.y << 1u)) | ((bits.z << 2u) | (bits.w << 3u));
}
#endif
