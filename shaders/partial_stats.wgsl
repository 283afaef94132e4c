// Partial statistics of every tile from one read of memory: mean m, Σ(x − m), Σ(x − m)², and a flag
// for NaN or Inf.
//
// A lane sums about a pivot, the mean of a quarter of its values or more, and then moves to the
// mean of all. The mean of k of n values lies at most √(n/k − 1) deviations of all from their mean,
// so the sum of squares about it is at most n/k = 4 times that about the mean. m is rounded to f32,
// exact for a constant; Σ(x − m) carries the rounding. x counts in units of 1/params.unit.
//
// Dispatch: one workgroup per 256/lanes_per_tile channels and tile. `combine_stats` runs next, or
// `finalize_stats` if a channel has one tile or the device one rank; if both, this kernel may do
// the work of that, and write y as well.

#import tile
#import load(x)
#import four
#import merge_stats
#import transpose
#import lane_stats
#import pivot

#if FINISHES
#import finish_stats
#else
// (tiles, C) of (m, Σ(x − m), Σ(x − m)², flag); written by `merge_over_lanes`
@group(0) @binding(2) var<storage, read_write> partial: array<vec4<f32>>;
#endif

//     e[0..8]  = elements of the lane; e[0] again where the tile has ended
//     p        = mean of the first four elements or fewer, of eight quads that cover planes
//     S1, S2   = Σ(e − p), Σ(e − p)², pairwise by fours
//     e[8..16] : the same
//     m        = p + S1/n, rounded to f32; S1 and S2 move to it
//     flag     = S2 is not finite, and a value is not: then the lane reads its values again
//     sums     = Chan's merge of (m, S1, S2, n) over the lanes of the tile
//     partial  = sums, or what `finalize_stats` makes of them
//
// Why it is fast: the kernel is memory-bound, and every value is loaded once.
// * One pass: the pivot needs four elements or eight, and no other waits in registers. Welford's
//   update takes one pass too, but divides per element; this divides once per lane.
// * Eight loads are in flight and do not depend on each other, with no branch between them. Sixteen
//   take so many registers that fewer subgroups are resident.
// * Four operations for a value, with its barrier against fast math and the removal of what does
//   not count.
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
    let start = begin_walk(invocation, workgroup.x + workgroup.y * workgroups.x);
    var walk = start;
    let elements = values_of_lane(walk.lane, walk.valid);
    // The lane's first element stands in where it has no more.
    let stand_in = choose(0u, walk.x, is_inside(walk));
    var a = next_four(&walk, stand_in, 0u, elements);
    var b = next_four(&walk, stand_in, 4u, elements);
    a = in_units(a);
    b = in_units(b);
    let pivot = pivot_of(a, b, elements);
#if COVERING
    var counted = counted_of(a) + counted_of(b);
#endif
    a = counted_deviations(a, pivot, 0u, elements);
    b = counted_deviations(b, pivot, 4u, elements);
    let sum_before = sum_of(a) + sum_of(b);
    let squares_before = squares_of(a) + squares_of(b);
    a = next_four(&walk, stand_in, 8u, elements);
    b = next_four(&walk, stand_in, 12u, elements);
    a = counted_deviations(in_units(a), pivot, 8u, elements);
    b = counted_deviations(in_units(b), pivot, 12u, elements);
    let sum = settled(sum_of_channel(sum_before + (sum_of(a) + sum_of(b))));
    let squares = settled(sum_of_channel(squares_before + (squares_of(a) + squares_of(b))));
    var not_finite = is_not_finite_element(squares);
    if (any(not_finite)) {
        not_finite = not_finite_of_lane(start);
    }
    // To the mean of all, as lanes merge: else the mean would be in a sum that every merge rounds.
#if COVERING
    counted += counted_of(a) + counted_of(b);
    let count = f32(counted);
#else
    let count = VALUES_OF_CHANNEL * f32(elements);
#endif
    let mean = settled(pivot + sum / max(count, 1.0));
    let away = difference(pivot, mean);
    let shift = count * away;
    let signed_count = select(V(count), V(-count), not_finite);
    var entries_of_lane =
        lane_entries(mean, sum + shift, squares + away * (2.0 * sum + shift), signed_count);
#if TAILS
    if (owns_tail(walk)) {
        entries_of_lane[0] = with_tail(entries_of_lane[0], load_x(tail_of(walk).x), walk.tail);
    }
#endif
    merge_over_lanes(entries_of_lane, walk, invocation);
#if FUSED
    write_y(start);
#endif
}
