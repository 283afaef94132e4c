// Partial statistics of every tile from one read of memory: mean m, Σ(x − m), Σ(x − m)², and a flag
// for NaN or Inf.
//
// An invocation holds 16 elements in registers. It takes their mean relative to the first, rounded
// to f32 (exact for a constant), then Σ(x − m) and Σ(x − m)²: what rounding takes from the mean is
// carried by the first sum. Each value of an element has a mean of its own; where they are of one
// channel, these merge before the lanes do. x counts in units of 1/params.unit. Dispatch: one
// workgroup per 256/lanes_per_tile channels and tile. `combine_stats` runs next, unless a channel has one
// tile.

#import tile
#import load(x)
#import four
#import merge_stats
#import transpose

// `merge_over_lanes` writes it.
@group(0) @binding(2) var<storage, read_write> partial: array<vec4<f32>>;   // (tiles, C) of (m, Σ(x − m), Σ(x − m)², flag)

// This invocation's next element; the stand-in where the tile has ended.
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

// What a lane holds: of every channel the mean, Σ(x − m), Σ(x − m)², and the count, below 0 where a
// value is NaN or infinite.
fn lane_entries(mean: V, sum: V, squares: V, count: V) -> array<vec4<f32>, SUMS> {
#if ONE_CHANNEL_QUADS
    let n = abs(count.x);
    let mean_of_all = settled_f32(mean.x + sum_of_four(difference_vec4(mean, vec4<f32>(mean.x))) * 0.25);
    let d = difference_vec4(mean, vec4<f32>(mean_of_all));
    let shift = n * d;
    let moved = squares + d * (2.0 * sum + shift);
    let values = select(4.0 * n, -4.0 * n, any(count < vec4<f32>(0.0)));
    return array<vec4<f32>, SUMS>(vec4<f32>(mean_of_all, sum_of_four(sum + shift), sum_of_four(moved), values));
#else
    return entries_of(mean, sum, squares, count);
#endif
}

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
    // Counted subgroup by subgroup, so that neighbours are of one subgroup wherever the device has
    // put them.
    let invocation = subgroup * subgroup_size + subgroup_invocation;
#endif
    var walk = begin_walk(invocation, workgroup.x + workgroup.y * workgroups.x);
    let elements = values_of_lane(walk.lane, walk.count);
    var first = V(0.0);
    if (is_inside(walk)) {
        first = load_x(walk.x);
    }
    // A stand-in equals the first element and so adds nothing to the first sum.
    var a = next_four(&walk, first);
    var b = next_four(&walk, first);
    var c = next_four(&walk, first);
    var d = next_four(&walk, first);
    let exponents = max(max(exponents_of(a), exponents_of(b)), max(exponents_of(c), exponents_of(d)));
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
    merge_over_lanes(lane_entries(mean, sum, squares, signed_count), walk, invocation);
}
