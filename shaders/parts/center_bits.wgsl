// Centering of a channel, with the bits of the host (`Centering`): mean·unit = pivot + rest and
// 1/(unit·√(var + eps)).

#import double
#import double_terms
#import choose
#import finite

struct CenterBits {
    pivot: u32,
    rest: u32,
    inv_std: u32,
    unit: u32,            // bits of a power of two
}

// Whether |a| > 2^log2.
fn is_beyond(a: Double, log2: i32) -> bool {
    let highest = a.exponent + 52;
    let is_power = a.high == 0x100000u && a.low == 0u;
    return !is_double_zero(a) && (highest > log2 || (highest == log2 && !is_power));
}

// The largest f32 in the place of infinity.
fn at_most_largest(bits: u32) -> u32 {
    return min(bits, 0x7f7fffffu);
}

fn exact_center(mean: Double, inv_std: Double, not_finite: bool) -> CenterBits {
    if (not_finite) {
        return CenterBits(NOT_FINITE, NOT_FINITE, NOT_FINITE, 0x3f800000u);
    }
    var unit = 0;
    let is_small = !is_double_zero(inv_std) && inv_std.exponent + 52 < -100;
    if (is_beyond(mean, 100) || is_small) {
        unit = -64;
    } else if (is_beyond(inv_std, 90)) {
        unit = 64;
    }
    let in_units = double_scaled(mean, unit);
    let pivot = f32_of(in_units);
    let rest = f32_of(double_difference(in_units, double_of_f32(pivot)));
    let root = at_most_largest(f32_of(double_scaled(inv_std, -unit)));
    return CenterBits(pivot, rest, root, u32(unit + 127) << 23u);
}
