// load_OPERAND: an element of the activation OPERAND as f32, however it is stored. Every conversion
// is exact.

#import element
#if OPERAND_F16
#import decode_f16
#endif

#if OPERAND_DECLARED
// (N, C, L), in elements; 16 bits are two to a word
@group(0) @binding(OPERAND_BINDING) var<storage, read> OPERAND: array<OPERAND_ELEMENT>;
#endif

#if OPERAND_PACKED
#if OPERAND_BY_QUADS
fn bits_of_OPERAND(address: u32) -> U {
    let words = OPERAND_BUFFER[address];
    return U(words.x & 0xffffu, words.x >> 16u, words.y & 0xffffu, words.y >> 16u);
}
#else
fn half_of_OPERAND(address: u32) -> u32 {
    return (OPERAND_BUFFER[address >> 1u] >> ((address & 1u) << 4u)) & 0xffffu;
}
#endif
#else
#if !OPERAND_BY_QUADS
fn value_of_OPERAND(address: u32) -> f32 {
#if OPERAND_NATIVE_F16
    return unpack2x16float(OPERAND_BUFFER[address >> 1u] >> ((address & 1u) << 4u)).x;
#else
    return OPERAND_BUFFER[address];
#endif
}
#endif
#endif

fn load_OPERAND(address: u32) -> V {
#if OPERAND_BY_QUADS
#if OPERAND_PACKED
    let bits = bits_of_OPERAND(address);
#else
#if OPERAND_NATIVE_F16
    let words = OPERAND_BUFFER[address];
    return V(unpack2x16float(words.x), unpack2x16float(words.y));
#else
    return OPERAND_BUFFER[address];
#endif
#endif
#endif
#if OPERAND_SINGLE
#if OPERAND_PACKED
    let bits = half_of_OPERAND(address);
#else
    return value_of_OPERAND(address);
#endif
#endif
#if OPERAND_STRIDED
    // Of another layout than x: the values of a quad have a stride of `g_value_stride` elements.
    let b = address + params.g_value_stride;
    let c = b + params.g_value_stride;
    let d = c + params.g_value_stride;
#if OPERAND_PACKED
    let bits = U(
        half_of_OPERAND(address),
        half_of_OPERAND(b),
        half_of_OPERAND(c),
        half_of_OPERAND(d),
    );
#else
    return V(
        value_of_OPERAND(address),
        value_of_OPERAND(b),
        value_of_OPERAND(c),
        value_of_OPERAND(d),
    );
#endif
#endif
#if OPERAND_F16
    return decode_f16(bits);
#endif
#if OPERAND_BF16
    return bitcast<V>(bits << U(16u));
#endif
}
