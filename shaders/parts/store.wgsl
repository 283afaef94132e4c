// What is stored of an element, given by the bits of its f32: these, or rounded to 16 bits where
// the output has 16.

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
