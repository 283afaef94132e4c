// Partial statistics of every tile from one read of memory: mean m, Σ(x − m), Σ(x − m)², and a flag for NaN or Inf.
//
// An invocation holds 16 values in registers. It takes their mean relative to the first, rounded to f32 (exact for a
// constant), then Σ(x − m) and Σ(x − m)²: what rounding takes from the mean is carried by the first sum.
// Dispatch: one workgroup per 256/rows channels and tile. `combine_stats` runs next, unless a channel has one tile.

@group(0) @binding(2) var<storage, read_write> partial: array<vec4<f32>>;   // (tiles, C) of (m, Σ(x − m), Σ(x − m)², flag)

// This invocation's next value; the stand-in where the tile has ended.
fn next_value(walk: ptr<function, Walk>, stand_in: f32) -> f32 {
    var value = stand_in;
    if (is_inside(*walk)) {
        value = load_x((*walk).x);
    }
    step_walk(walk);
    return value;
}

fn next_four(walk: ptr<function, Walk>, stand_in: f32) -> vec4<f32> {
    let a = next_value(walk, stand_in);
    let b = next_value(walk, stand_in);
    let c = next_value(walk, stand_in);
    let d = next_value(walk, stand_in);
    return vec4<f32>(a, b, c, d);
}

// What four values have over another, 0 where they are stand-ins; `at` is the number of the first.
fn over(values: vec4<f32>, mean: f32, at: u32, count: u32) -> vec4<f32> {
    return select(vec4<f32>(0.0), values - mean, vec4<u32>(at) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(count));
}

@compute @workgroup_size(256)
fn main(
    own: Own,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
) {
    let lane = lane_of_own(own);
    var walk = begin_walk(lane, workgroup.x + workgroup.y * workgroups.x);
    let values = values_of_row(walk.row, walk.count);
    var first = 0.0;
    if (is_inside(walk)) {
        first = load_x(walk.x);
    }
    // A stand-in equals the first value and so adds nothing to the first sum.
    let a = next_four(&walk, first);
    let b = next_four(&walk, first);
    let c = next_four(&walk, first);
    let d = next_four(&walk, first);
    let from_first = sum_of_four(((a - first) + (b - first)) + ((c - first) + (d - first)));
    let count = f32(values);
    let mean = first + from_first / max(count, 1.0);
    let da = over(a, mean, 0u, values);
    let db = over(b, mean, 4u, values);
    let dc = over(c, mean, 8u, values);
    let dd = over(d, mean, 12u, values);
    let sum = sum_of_four((da + db) + (dc + dd));
    let squares = sum_of_four((da * da + db * db) + (dc * dc + dd * dd));
    let is_lost = (are_lost(a) || are_lost(b)) || (are_lost(c) || are_lost(d));
    let entry = vec4<f32>(mean, sum, squares, select(count, -count, is_lost));
    merge_over_rows(array<vec4<f32>, SUMS>(entry), walk, lane);
}

fn are_lost(v: vec4<f32>) -> bool {
    return (is_not_finite(v.x) || is_not_finite(v.y)) || (is_not_finite(v.z) || is_not_finite(v.w));
}
