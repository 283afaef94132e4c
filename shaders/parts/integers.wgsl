// Integers of values on a grid, as digits whose products fit words.
//
//     t = x·unit·scale + offset        the f32 difference x − pivot, scaled: fused or not
//     q = round(t)                     ties to even, |q| at most 2²⁹ − 32
//     u = q + 2²⁹                      30 bits without a sign
//     u = 2¹⁵·high + low               products of digits are below 2³⁰
//
// The kernel that merges ranks knows the number of values, and subtracts the 2²⁹ again.

#import element
#import settled_element
#import choose_element

#if QUADS
alias I = vec4<i32>;
#else
alias I = i32;
#endif

// Of a channel, as the host sends it or the device finds it.
struct GridParams {
    scale: f32,           // 2⁻ᵉ/unit, or 0 where all integers are 0
    offset: f32,          // −pivot·2⁻ᵉ
    unit: f32,            // 1, or 2⁶⁴ for ranges below 2⁻⁹⁸
    mark: u32,            // 0 where none of 256 channels, from a multiple on, has integers
}

// Of the channels of an element.
struct Grid {
    scale: V,
    offset: V,
    unit: V,
    kept: U,              // all bits, or none where all integers are 0
}

const BIAS: u32 = 0x20000000u;

const DIGIT_BITS: u32 = 15u;
const DIGIT: u32 = 0x7fffu;

// Grid `which` of the GRIDS that a channel has.
fn grid_of(channel: u32, which: u32) -> Grid {
#if FOUR_CHANNELS
    let first = 4u * channel * GRIDS + which;
    let a = grids[first];
    let b = grids[first + GRIDS];
    let c = grids[first + 2u * GRIDS];
    let d = grids[first + 3u * GRIDS];
    let scale = V(a.scale, b.scale, c.scale, d.scale);
    let offset = V(a.offset, b.offset, c.offset, d.offset);
    let unit = V(a.unit, b.unit, c.unit, d.unit);
#else
    let entry = grids[channel * GRIDS + which];
    let scale = V(entry.scale);
    let offset = V(entry.offset);
    let unit = V(entry.unit);
#endif
    let kept = choose_element(U(0u), U(0xffffffffu), scale != V(0.0));
    return Grid(scale, offset, unit, kept);
}

// Whether a channel of the element has integers.
fn has_integers(grid: Grid) -> bool {
#if QUADS
    return any(grid.kept != U(0u));
#else
    return grid.kept != 0u;
#endif
}

// t. Its bits pass an integer operation, so that every use has the same ones; and 0 takes the place
// of what is not finite, whose channel has no integers.
fn place_of(value: V, grid: Grid) -> V {
    let t = settled(value * grid.unit) * grid.scale + grid.offset;
    return bitcast<V>(bitcast<U>(t) & grid.kept);
}

// u = round(t) + 2²⁹.
fn integer_of(t: V) -> U {
    return bitcast<U>(I(round(t))) + U(BIAS);
}

// round((t − q)·2²⁴) + 2²⁹: the rounding error of t, exactly, in finer steps.
fn rest_of(t: V) -> U {
    return integer_of(difference(t, settled(round(t))) * V(16777216.0));
}
