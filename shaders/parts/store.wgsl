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

#if OUTPUT_ROUNDED_BY_DEVICE
#import settled_element

// By the device's own conversion, which the probe has found to round to the nearest even. A NaN
// becomes 0x7e00.
fn stored(bits: U) -> Stored {
    // Settled: or a compiler might round once what the source rounds to f32 first.
    let values = settled(bitcast<V>(bits));
    let words = Stored(pack2x16float(values.xy), pack2x16float(values.zw));
    // The highest bit of each half whose magnitude is above infinity.
    let above = ((words & Stored(0x7fff7fffu)) + Stored(0x03ff03ffu)) & Stored(0x80008000u);
    if (any(above != Stored(0u))) {
        let is_nan = (above << Stored(1u)) - (above >> Stored(15u));
        return (words & ~is_nan) | (Stored(0x7e007e00u) & is_nan);
    }
    return words;
}
#else
fn stored(bits: U) -> Stored {
    let halves = encode(bits);
    return Stored(halves.x | (halves.y << 16u), halves.z | (halves.w << 16u));
}
#endif
#endif
