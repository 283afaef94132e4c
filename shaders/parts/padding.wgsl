// Padded samples: of every sample only the first positions count.
//
// A padded batch has tiles of its own in every sample, so that what counts of a tile comes first in
// it. No step of a walk asks for it: a lane's walk ends earlier. A quad of one channel may lie
// across the border; then `tail` of its values count, and one lane takes it by itself.

#import element
#import params
#import choose

// Positions that count, by sample from the one at `first_length` on: four to a vector.
@group(0) @binding(LENGTHS_BINDING) var<uniform> lengths: array<vec4<u32>, 1024>;

fn length_of(sample: u32) -> u32 {
    let number = params.first_length + sample;
    let four = lengths[number >> 2u];
    let low = choose(four.x, four.y, (number & 1u) != 0u);
    let high = choose(four.z, four.w, (number & 1u) != 0u);
    return choose(low, high, (number & 2u) != 0u);
}

// The part of a tile that counts, in units.
struct Border {
    units: u32,
    tail: u32,            // values of the unit behind them that count: 0 unless it is a quad
}

// Of a tile of `count` units of a sample, behind `before` others.
fn border_of(sample: u32, before: u32, count: u32) -> Border {
    let length = length_of(sample);
#if TAILS
    let units = length >> 2u;
    let left = max(units, before) - before;
    return Border(
        min(count, left),
        choose(0u, length & 3u, units >= before && left < count),
    );
#else
    return Border(min(count, max(length, before) - before), 0u);
#endif
}

#if TAILS
// Which values of the quad at the border count.
fn counted_values(tail: u32) -> B {
    return U(0u, 1u, 2u, 3u) < U(tail);
}
#endif
