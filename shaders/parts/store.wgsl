// The stored form of an element, from the bits of its f32: these bits, or 16 bits if the output has
// a 16-bit type.

#import element

#if OUTPUT_F32
alias Stored = V;

fn stored(bits: U) -> Stored {
    return bitcast<V>(bits);
}
#else
#import encode

alias Stored = vec2<u32>;   // four values, two to a word

fn stored(bits: U) -> Stored {
    let halves = encode(bits);
    return Stored(halves.x | (halves.y << 16u), halves.z | (halves.w << 16u));
}
#endif
