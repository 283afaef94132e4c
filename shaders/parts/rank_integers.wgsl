// Ranges and sums of integers of all ranks of one device, merged: exactly, so in any order.

#import wide
#import wide_digits

struct RankWeight {
    count: f32,    // values per channel of the rank; without any, its sums are not written
    weight: f32,   // nothing here
}

// (ranks, sections, C, 2), as `combine_integers` leaves them: a rank every params.rank_stride
// vectors, a section every params.section_stride
@group(0) @binding(1) var<storage, read> locals: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> rank_weights: array<RankWeight>;   // (ranks)

// The sections of a rank.
const INTEGERS: u32 = 0u;           // Σq and Σq², or Σq, Σw and Σq·w; before them both ends
const OF_RESTS: u32 = 1u;           // Σq, Σr and Σq·r
const OF_SQUARES_OF_RESTS: u32 = 2u;   // Σr²

// Of s and t, with a sign.
struct IntegerSums {
    s: vec4<u32>,
    t: vec4<u32>,
    product: vec4<u32>,
}

fn vector_of(rank: u32, section: u32, channel: u32) -> u32 {
    return rank * params.rank_stride + section * params.section_stride + 2u * channel;
}

// Both ends over the ranks from `first` to before `end`.
fn ends_of(first: u32, end: u32, channel: u32) -> vec4<u32> {
    var ends = vec4<u32>(0u);
    for (var rank = first; rank < end; rank++) {
        if (rank_weights[rank].count > 0.0) {
            ends = max(ends, locals[vector_of(rank, INTEGERS, channel)]);
        }
    }
    return ends;
}

// The sums over those ranks, which have `count` values, without the 2²⁹ that the kernels add to
// each: Σs·t = Σu·v − 2²⁹·(Σs + Σt) − count·2⁵⁸.
fn sums_of(first: u32, end: u32, section: u32, channel: u32, count: u32) -> IntegerSums {
    var both = vec4<u32>(0u);
    var products = vec4<u32>(0u);
    for (var rank = first; rank < end; rank++) {
        if (rank_weights[rank].count > 0.0) {
            let at = vector_of(rank, section, channel);
            // Neither carries beyond its 64 bits.
            both = plus(both, locals[at]);
            products = plus(products, locals[at + 1u]);
        }
    }
    let values = vec4<u32>(count, 0u, 0u, 0u);
    let shift = moved_up(values, 29u);
    let s = minus(vec4<u32>(both.xy, 0u, 0u), shift);
    let t = minus(vec4<u32>(both.zw, 0u, 0u), shift);
    let of_shifts = plus(moved_up(plus(s, t), 29u), moved_up(values, 58u));
    return IntegerSums(s, t, minus(products, of_shifts));
}
