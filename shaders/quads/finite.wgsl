// NaN and infinity by the exponent bits, as integers: a compiler may assume that no f32 is either of them.

// Where its bits are all set, a value is NaN or infinite.
const EXPONENTS: vec4<u32> = vec4<u32>(0x7f800000u);

// The bits of a NaN.
const NOT_FINITE: u32 = 0x7fc00000u;

fn are_not_finite(value: vec4<f32>) -> vec4<bool> {
    return (bitcast<vec4<u32>>(value) & EXPONENTS) == EXPONENTS;
}
