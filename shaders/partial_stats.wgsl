// Partial statistics of every tile from one read of memory: mean m, Σ(x − m), Σ(x − m)², and a flag
// for NaN or Inf.
//
// A lane sums about a pivot, the mean of a quarter of its values or more, and then moves to the
// mean of all. The mean of k of n values lies at most √(n/k − 1) deviations of all from their mean,
// so the sum of squares about it is at most n/k = 4 times that about the mean. m is rounded to f32,
// exact for a constant; Σ(x − m) carries the rounding. x counts in units of 1/params.unit. The
// values of a quad have a mean each; where they are of one channel, these merge before the lanes.
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

#if FINISHES
#import finish_stats
#else
// (tiles, C) of (m, Σ(x − m), Σ(x − m)², flag); written by `merge_over_lanes`
@group(0) @binding(2) var<storage, read_write> partial: array<vec4<f32>>;
#endif

// This lane's next element; where the tile has ended, that at `stand_in`. An address is chosen and
// no load is left out: loads under a branch would wait for each other.
fn next_element(walk: ptr<function, Walk>, stand_in: u32) -> V {
    let address = choose(stand_in, (*walk).x, is_inside(*walk));
    step_walk(walk);
    return load_x(address);
}

fn next_four(walk: ptr<function, Walk>, stand_in: u32) -> Four {
    let a = next_element(walk, stand_in);
    let b = next_element(walk, stand_in);
    let c = next_element(walk, stand_in);
    let d = next_element(walk, stand_in);
    return Four(a, b, c, d);
}

//     e[0..16] = elements of the lane; e[0] again where the tile has ended
//     p        = e[0] + Σ(e − e[0])/k, rounded to f32         over the first four, or k of them
//     S1, S2   = Σ(e − p), Σ(e − p)², pairwise by fours
//     m        = p + S1/n, rounded to f32; S1 and S2 move to it
//     flag     = Σ e·0 is not 0
//     sums     = Chan's merge of (m, S1, S2, n) over the lanes of the tile
//     partial  = sums, or what `finalize_stats` makes of them
//
// Why it is fast: the kernel is memory-bound, and every value is loaded once.
// * One pass: the pivot needs four elements, and the others need not wait in registers. Welford's
//   update takes one pass too, but divides per element; this divides once per lane.
// * The 16 loads do not depend on each other, and no branch lies between them.
// * Neighbouring lanes load neighbouring elements: loads coalesce (parts/lanes.wgsl).
// * The flag costs one multiplication and addition of a value (parts/zeros.wgsl).
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
    // The lane's first element stands in, and so adds nothing to the first sum.
    let stand_in = choose(0u, walk.x, is_inside(walk));
    var a = next_four(&walk, stand_in);
    var b = next_four(&walk, stand_in);
    var c = next_four(&walk, stand_in);
    var d = next_four(&walk, stand_in);
    let nothing = settled((nothing_of(a) + nothing_of(b)) + (nothing_of(c) + nothing_of(d)));
    // A power of two: exact. Settled, so that no compiler takes differences before it multiplies.
    let first = settled(a.a * params.unit);
    a = in_units(a);
    b = in_units(b);
    c = in_units(c);
    d = in_units(d);
    let in_pivot = clamp(f32(elements), 1.0, 4.0);
    let of_first = first + sum_of(deviations(a, first)) / in_pivot;
    // A lane without elements has read what is none of its own.
    let pivot = settled(select(of_first, V(0.0), B(elements == 0u)));
    let da = without_stand_ins(deviations(a, pivot), 0u, elements);
    let db = without_stand_ins(deviations(b, pivot), 4u, elements);
    let dc = without_stand_ins(deviations(c, pivot), 8u, elements);
    let dd = without_stand_ins(deviations(d, pivot), 12u, elements);
    let sum = settled((sum_of(da) + sum_of(db)) + (sum_of(dc) + sum_of(dd)));
    let squares = (squares_of(da) + squares_of(db)) + (squares_of(dc) + squares_of(dd));
    // To the mean of all, as lanes merge: else the mean would be in a sum that every merge rounds.
    let count = f32(elements);
    let mean = settled(pivot + sum / max(count, 1.0));
    let away = difference(pivot, mean);
    let shift = count * away;
    let signed_count = select(V(count), V(-count), is_not_finite_element(nothing));
    var entries_of_lane =
        lane_entries(mean, sum + shift, squares + away * (2.0 * sum + shift), signed_count);
#if ONE_CHANNEL_QUADS
    if (owns_tail(walk)) {
        entries_of_lane[0] = with_tail(entries_of_lane[0], load_x(tail_of(walk).x), walk.tail);
    }
#endif
    merge_over_lanes(entries_of_lane, walk, invocation);
#if FUSED
    write_y(start);
#endif
}
