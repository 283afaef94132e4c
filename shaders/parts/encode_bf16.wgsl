// The bf16 nearest to an f32, ties to even, by integer arithmetic.

fn encode(value: f32) -> u32 {
    let bits = bitcast<u32>(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        return (bits >> 16u) | 0x0040u;   // NaN, quiet, with the upper bits of its payload
    }
    // Half of the last place less one, one more if it is odd; a carry goes into the exponent, up to infinity.
    return (bits + 0x7fffu + ((bits >> 16u) & 1u)) >> 16u;
}
