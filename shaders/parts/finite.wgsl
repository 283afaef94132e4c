// NaN and infinity by the exponent bits, as integers: a compiler may assume that no f32 is either
// of them. The value is loaded or settled, else the compiler knows by which operation it was made.

const EXPONENT: u32 = 0x7f800000u;

// The bits of a NaN.
const NOT_FINITE: u32 = 0x7fc00000u;

fn is_not_finite(value: f32) -> bool {
    return (bitcast<u32>(value) & EXPONENT) == EXPONENT;
}
