// Partial statistics of every tile from one read of memory, four values at a time: mean m, Σ(x − m), Σ(x − m)², and a flag
// for NaN or Inf.
//
// An invocation holds 16 quads in registers. It takes the mean of each of the four columns of its values relative to the
// first, rounded to f32 (exact for a constant), then Σ(x − m) and Σ(x − m)²: what rounding takes from the mean is carried by
// the first sum.
// Dispatch: one workgroup per 256/rows channels and tile. `combine_stats` runs next, unless a channel has one tile.

@group(0) @binding(2) var<storage, read_write> partial: array<vec4<f32>>;   // (tiles, C) of (m, Σ(x − m), Σ(x − m)², flag)

// This invocation's next quad; the stand-in where the tile has ended.
fn next_quad(walk: ptr<function, Walk>, stand_in: vec4<f32>) -> vec4<f32> {
    var quad = stand_in;
    if (is_inside(*walk)) {
        quad = load_x((*walk).x);
    }
    step_walk(walk);
    return quad;
}

fn next_four(walk: ptr<function, Walk>, stand_in: vec4<f32>) -> mat4x4<f32> {
    let a = next_quad(walk, stand_in);
    let b = next_quad(walk, stand_in);
    let c = next_quad(walk, stand_in);
    let d = next_quad(walk, stand_in);
    return mat4x4<f32>(a, b, c, d);
}

// What four quads have over another, 0 where they are stand-ins; `at` is the number of the first.
fn over(quads: mat4x4<f32>, mean: vec4<f32>, at: u32, count: u32) -> mat4x4<f32> {
    let none = vec4<f32>(0.0);
    return mat4x4<f32>(
        select(none, quads[0] - mean, at < count),
        select(none, quads[1] - mean, at + 1u < count),
        select(none, quads[2] - mean, at + 2u < count),
        select(none, quads[3] - mean, at + 3u < count),
    );
}

fn sum_of(quads: mat4x4<f32>) -> vec4<f32> {
    return (quads[0] + quads[1]) + (quads[2] + quads[3]);
}

fn squares_of(quads: mat4x4<f32>) -> vec4<f32> {
    return (quads[0] * quads[0] + quads[1] * quads[1]) + (quads[2] * quads[2] + quads[3] * quads[3]);
}

// The largest exponent of each column, as bits.
fn exponents_of(quads: mat4x4<f32>) -> vec4<u32> {
    let pair = max(bitcast<vec4<u32>>(quads[0]) & EXPONENTS, bitcast<vec4<u32>>(quads[1]) & EXPONENTS);
    return max(pair, max(bitcast<vec4<u32>>(quads[2]) & EXPONENTS, bitcast<vec4<u32>>(quads[3]) & EXPONENTS));
}

@compute @workgroup_size(256)
fn main(
    own: Own,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
) {
    let lane = lane_of_own(own);
    var walk = begin_walk(lane, workgroup.x + workgroup.y * workgroups.x);
    let quads = values_of_row(walk.row, walk.count);
    var first = vec4<f32>(0.0);
    if (is_inside(walk)) {
        first = load_x(walk.x);
    }
    // A stand-in equals the first quad and so adds nothing to the first sum.
    let a = next_four(&walk, first);
    let b = next_four(&walk, first);
    let c = next_four(&walk, first);
    let d = next_four(&walk, first);
    let firsts = mat4x4<f32>(first, first, first, first);
    let from_first = (sum_of(a - firsts) + sum_of(b - firsts)) + (sum_of(c - firsts) + sum_of(d - firsts));
    let exponents = max(max(exponents_of(a), exponents_of(b)), max(exponents_of(c), exponents_of(d)));
    let count = f32(quads);
    let mean = first + from_first / max(count, 1.0);
    let da = over(a, mean, 0u, quads);
    let db = over(b, mean, 4u, quads);
    let dc = over(c, mean, 8u, quads);
    let dd = over(d, mean, 12u, quads);
    let sum = (sum_of(da) + sum_of(db)) + (sum_of(dc) + sum_of(dd));
    let squares = (squares_of(da) + squares_of(db)) + (squares_of(dc) + squares_of(dd));
    let counts = select(vec4<f32>(count), vec4<f32>(-count), exponents == EXPONENTS);
    merge_over_rows(own_entries(mean, sum, squares, counts), walk, lane);
}
