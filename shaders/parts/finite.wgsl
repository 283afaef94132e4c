// NaN and infinity by the exponent bits, as integers: a compiler may assume that no f32 is either of them.

fn is_not_finite(value: f32) -> bool {
    return (bitcast<u32>(value) & 0x7f800000u) == 0x7f800000u;
}

// 1 where the value is NaN or infinite, else 0: a flag that adds up.
fn flag_of(value: f32) -> f32 {
    return select(0.0, 1.0, is_not_finite(value));
}
