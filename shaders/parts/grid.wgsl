// The grid by which the values of a range become integers: as `Grid` and `GridParams` on the host.

#import double
#import double_terms
#import finite

struct Made {
    grid: vec4<u32>,      // bits of scale, offset and unit of `GridParams`, and its mark
    pivot: u32,           // bits of the middle of the range; of a NaN where one is not finite
}

const ONE: u32 = 0x3f800000u;
const TWO_TO_64: u32 = 0x5f800000u;

// All integers are 0.
fn no_grid(pivot: u32) -> Made {
    return Made(vec4<u32>(0u, 0u, ONE, 1u), pivot);
}

fn is_finite(bits: u32) -> bool {
    return (bits & EXPONENT) != EXPONENT;
}

// From the bits of both ends.
fn grid_from(low: u32, high: u32) -> Made {
    if (!is_finite(low) || !is_finite(high)) {
        return no_grid(NOT_FINITE);
    }
    let lowest = double_of_f32(low);
    let highest = double_of_f32(high);
    let pivot = f32_of(double_scaled(double_sum(lowest, highest), -1));
    let middle = double_of_f32(pivot);
    let above = f32_of(double_difference(highest, middle));
    let below = f32_of(double_difference(middle, lowest));
    // Neither is negative, so that the bits have their order.
    let half = max(above, below);
    if (half == 0u) {
        return no_grid(pivot);
    }
    let log2_of_half = double_of_f32(half).exponent + 52;
    let e = log2_of_half - 28;
    var unit = ONE;
    var scale = 127 - e;
    if (log2_of_half < -98) {
        unit = TWO_TO_64;
        scale -= 64;
    }
    let offset = f32_of(double_scaled(double_negated(middle), -e));
    return Made(vec4<u32>(u32(scale) << 23u, offset, unit, 1u), pivot);
}

fn has_grid(grid: vec4<u32>) -> bool {
    return grid.x != 0u;
}

// e of a grid with integers.
fn exponent_of(grid: vec4<u32>) -> i32 {
    var e = 127 - i32(grid.x >> 23u);
    if (grid.z != ONE) {
        e -= 64;
    }
    return e;
}
