// Both ends of the values of every tile, or exact sums of their integers: sums that have no order.
//
// The range of a channel over all ranks comes first. It gives the grid by which values become
// integers (parts/integers.wgsl). Sums of two integers s and t of every value, and of s·t, follow:
// s = t = q of x; where outliers lie far away, s = q and t = r of what rounding took, and s = t =
// r.
//
// Dispatch: one workgroup per 256/lanes_per_tile channels and tile. `combine_integers` runs next.

#import tile
#import load(x)
#import takes
#import ends
#import integer_sums
#import merge_words
#import marks

@group(0) @binding(2) var<storage, read> grids: array<GridParams>;   // (C), or a dummy
// (tiles, C, 3) of the words of `LaneSums`, or of both ends in the first; written by
// `merge_over_lanes`
@group(0) @binding(3) var<storage, read_write> partial: array<vec4<u32>>;

const GRIDS: u32 = 1u;

// Adds an element, of which only the values of `counted` bits count.
fn add_value(
    sums: ptr<function, LaneSums>,
    four: ptr<function, Four>,
    x: V,
    counted: U,
    grid: Grid,
) {
    if (params.takes == RANGE) {
        let key = key_of(x);
        (*sums).ends.low = max((*sums).ends.low, key_from_above(key) & counted);
        (*sums).ends.high = max((*sums).ends.high, key & counted);
        return;
    }
    let t = place_of(x, grid);
    let q = integer_of(t) & counted;
    if (params.takes == SUMS_OF_INTEGERS) {
        add_product(four, q, q);
        return;
    }
    let r = rest_of(t) & counted;
    if (params.takes == RESTS) {
        add_product(four, q, r);
    } else {
        add_product(four, r, r);
    }
}

// Adds this lane's next element, if there is one.
fn add_element(
    sums: ptr<function, LaneSums>,
    four: ptr<function, Four>,
    walk: ptr<function, Walk>,
    grid: Grid,
) {
    if (is_inside(*walk)) {
        add_value(sums, four, load_x((*walk).x), U(0xffffffffu), grid);
    }
    step_walk(walk);
}

//     return where rests are taken and no channel has far outliers
//     for the lane's elements, up to 16, four by four:
//         words of the four += digits of s, t and s·t           below 2³²
//         words of the lane += their halves of 16 bits
//     partial  = the sum of the words over the lanes of the tile
//
// Why it is fast: the kernel is memory-bound, and every value is loaded once, coalesced.
// * Digits of 15 bits multiply in the 24 bits that GPUs multiply at full rate. No carry, no sign
//   and no absolute value is in the loop: about 20 instructions for each value.
// * params.takes is the same for all invocations, so no branch diverges.
// * A channel whose integers are all 0 is not read.
@compute @workgroup_size(256)
fn main(
    @builtin(local_invocation_index) invocation: u32,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
) {
    var walk = begin_walk(invocation, workgroup.x + workgroup.y * workgroups.x);
    if (params.takes >= RESTS) {
        if (invocation == 0u) {
            entries[0] = vec4<u32>(marks_of(walk.channel));
        }
        let mark = workgroupUniformLoad(&entries[0]);
        if (mark.x == 0u) {
            return;
        }
    }
    var grid: Grid;
    if (walk.count > 0u && params.takes != RANGE) {
        grid = grid_of(walk.channel, 0u);
        if (!has_integers(grid)) {
            walk.end = 0u;
        }
    }
    var sums: LaneSums;
    for (var i = 0u; i < params.values_per_lane; i += 4u) {
        var four = no_four();
        add_element(&sums, &four, &walk, grid);
        add_element(&sums, &four, &walk, grid);
        add_element(&sums, &four, &walk, grid);
        add_element(&sums, &four, &walk, grid);
        add_four(&sums, four);
    }
#if TAILS
    if (owns_tail(walk)) {
        var four = no_four();
        let counted = choose_element(U(0u), U(0xffffffffu), counted_values(walk.tail));
        add_value(&sums, &four, load_x(tail_of(walk).x), counted, grid);
        add_four(&sums, four);
    }
#endif
    merge_over_lanes(sums, walk, invocation);
}
