// Partial statistics of every tile from one read of memory: mean m, Σ(x − m), Σ(x − m)², and a flag
// for NaN or Inf.
//
// m is rounded to f32, which is exact for a constant; Σ(x − m) carries what rounding takes from it.
// x counts in units of 1/params.unit. The values of a quad have a mean each; where they are of one
// channel, these merge before the lanes do.
//
// Dispatch: one workgroup per 256/lanes_per_tile channels and tile. `combine_stats` runs next,
// unless a channel has one tile: then the ranks merge.

#import tile
#import load(x)
#import four
#import merge_stats
#import transpose
#import lane_stats

// (tiles, C) of (m, Σ(x − m), Σ(x − m)², flag); written by `merge_over_lanes`
@group(0) @binding(2) var<storage, read_write> partial: array<vec4<f32>>;

// This lane's next element; the stand-in where the tile has ended.
fn next_element(walk: ptr<function, Walk>, stand_in: V) -> V {
    var element = stand_in;
    if (is_inside(*walk)) {
        element = load_x((*walk).x);
    }
    step_walk(walk);
    return element;
}

fn next_four(walk: ptr<function, Walk>, stand_in: V) -> Four {
    let a = next_element(walk, stand_in);
    let b = next_element(walk, stand_in);
    let c = next_element(walk, stand_in);
    let d = next_element(walk, stand_in);
    return Four(a, b, c, d);
}

//     e[0..16] = elements of the lane; e[0] again where the tile has ended
//     m        = e[0] + Σ(e − e[0])/n, rounded to f32
//     S1, S2   = Σ(e − m), Σ(e − m)², pairwise by fours
//     partial  = Chan's merge of (m, S1, S2, n) over the lanes of the tile
//
// Why it is fast: the kernel is memory-bound, and every value is loaded once.
// * Register tile: both passes, for m and about m, are over 16 elements in registers (64 values of
//   quads). Welford's update takes one pass, but divides per element; this divides once per lane.
// * The 16 loads do not depend on each other. All are in flight at once and hide latency by
//   themselves, so occupancy may be low: 64 values leave registers for few subgroups.
// * Neighbouring lanes load neighbouring elements: loads coalesce (parts/lanes.wgsl).
// * No barrier before the lanes merge, and none in a loop then: two per 16,384 values of quads.
// The order of all sums is that of lanes and steps: no device, window or subgroup changes a bit.
@compute @workgroup_size(256)
fn main(
#if SUBGROUPS
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_size) subgroup_size: u32,
    @builtin(subgroup_invocation_id) subgroup_invocation: u32,
#else
    @builtin(local_invocation_index) invocation: u32,
#endif
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
) {
#if SUBGROUPS
    // Counted subgroup by subgroup: neighbours are of one subgroup wherever the device puts them.
    let invocation = subgroup * subgroup_size + subgroup_invocation;
#endif
    var walk = begin_walk(invocation, workgroup.x + workgroup.y * workgroups.x);
    let elements = values_of_lane(walk.lane, walk.valid);
    var first = V(0.0);
    if (is_inside(walk)) {
        first = load_x(walk.x);
    }
    // A stand-in equals the first element and so adds nothing to the first sum.
    var a = next_four(&walk, first);
    var b = next_four(&walk, first);
    var c = next_four(&walk, first);
    var d = next_four(&walk, first);
    let exponents =
        max(max(exponents_of(a), exponents_of(b)), max(exponents_of(c), exponents_of(d)));
    // A power of two: exact. Settled, so that no compiler takes differences before it multiplies.
    first = settled(first * params.unit);
    a = in_units(a);
    b = in_units(b);
    c = in_units(c);
    d = in_units(d);
    let from_first = (sum_of(deviations(a, first)) + sum_of(deviations(b, first)))
        + (sum_of(deviations(c, first)) + sum_of(deviations(d, first)));
    let count = f32(elements);
    let mean = settled(first + from_first / max(count, 1.0));
    let da = without_stand_ins(deviations(a, mean), 0u, elements);
    let db = without_stand_ins(deviations(b, mean), 4u, elements);
    let dc = without_stand_ins(deviations(c, mean), 8u, elements);
    let dd = without_stand_ins(deviations(d, mean), 12u, elements);
    let sum = (sum_of(da) + sum_of(db)) + (sum_of(dc) + sum_of(dd));
    let squares = (squares_of(da) + squares_of(db)) + (squares_of(dc) + squares_of(dd));
    let signed_count = select(V(count), V(-count), exponents == U(EXPONENT));
    var entries_of_lane = lane_entries(mean, sum, squares, signed_count);
#if ONE_CHANNEL_QUADS
    if (owns_tail(walk)) {
        entries_of_lane[0] = with_tail(entries_of_lane[0], load_x(tail_of(walk).x), walk.tail);
    }
#endif
    merge_over_lanes(entries_of_lane, walk, invocation);
}
