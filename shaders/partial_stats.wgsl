// Partial statistics of every tile from one read of memory: mean m, Σ(x − m), Σ(x − m)², and a flag for NaN or Inf.
//
// m = x₀ + Σ(x − x₀)/n with x₀ the first value of the tile (exact for a constant), rounded to f32; what that rounding
// takes from the mean is carried by Σ(x − m). The tile stays in registers between the two sums.
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

fn sum_of_four(v: vec4<f32>) -> f32 {
    return (v.x + v.y) + (v.z + v.w);
}

fn flags_of_four(v: vec4<f32>) -> f32 {
    return (flag_of(v.x) + flag_of(v.y)) + (flag_of(v.z) + flag_of(v.w));
}

// 1 for each of four values that the tile has, 0 for a stand-in; `at` is the number of the first.
fn inside_four(at: u32, count: u32) -> vec4<f32> {
    let numbers = vec4<u32>(at) + vec4<u32>(0u, 1u, 2u, 3u) * params.rows;
    return select(vec4<f32>(0.0), vec4<f32>(1.0), numbers < vec4<u32>(count));
}

@compute @workgroup_size(256)
fn main(
    @builtin(local_invocation_index) lane: u32,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
) {
    var walk = begin_walk(lane, workgroup.x + workgroup.y * workgroups.x);
    var first = 0.0;
    if (walk.count > 0u) {
        first = load_x(walk.first);
    }
    // A stand-in equals x₀ and so adds nothing to the first sum.
    let a = next_four(&walk, first);
    let b = next_four(&walk, first);
    let c = next_four(&walk, first);
    let d = next_four(&walk, first);
    let from_first = ((a - first) + (b - first)) + ((c - first) + (d - first));
    let total = sum_over_rows(vec4<f32>(sum_of_four(from_first), 0.0, 0.0, 0.0), walk.row, walk.column, params.rows, params.columns_log2);
    let mean = first + total.x / f32(max(walk.count, 1u));

    let stride = 4u * params.rows;
    let da = (a - mean) * inside_four(walk.row, walk.count);
    let db = (b - mean) * inside_four(walk.row + stride, walk.count);
    let dc = (c - mean) * inside_four(walk.row + 2u * stride, walk.count);
    let dd = (d - mean) * inside_four(walk.row + 3u * stride, walk.count);
    let flags = (flags_of_four(a) + flags_of_four(b)) + (flags_of_four(c) + flags_of_four(d));
    let sums = sum_over_rows(
        vec4<f32>(
            sum_of_four((da + db) + (dc + dd)),
            sum_of_four((da * da + db * db) + (dc * dc + dd * dd)),
            flags,
            0.0,
        ),
        walk.row, walk.column, params.rows, params.columns_log2,
    );
    if (walk.row == 0u && walk.count > 0u) {
        partial[walk.tile * params.channels + walk.channel] = vec4<f32>(mean, sums.x, sums.y, sums.z);
    }
}
