// Partial statistics of every tile from one read of memory, four values at a time: mean m, Σ(x − m), Σ(x − m)², and a flag
// for NaN or Inf.
//
// An invocation holds 16 quads in registers. It takes the mean of each of the four columns of its values relative to the
// first, rounded to f32 (exact for a constant), then Σ(x − m) and Σ(x − m)²: what rounding takes from the mean is carried by
// the first sum.
// Dispatch: one workgroup per 256/rows channels and tile. `combine_stats` runs next, unless a channel has one tile.

@group(0) @binding(2) var<storage, read_write> partial: array<vec4<f32>>;   // (tiles, C) of (m, Σ(x − m), Σ(x − m)², flag)

// Quads that one row of a tile has.
fn quads_of_row(row: u32, count: u32) -> u32 {
    return (max(count, row) - row + params.rows - 1u) / params.rows;
}

// This invocation's next quad; the stand-in where the tile has ended.
fn next_quad(walk: ptr<function, Walk>, stand_in: vec4<f32>) -> vec4<f32> {
    var quad = stand_in;
    if (is_inside(*walk)) {
        quad = load_x((*walk).x);
    }
    step_walk(walk);
    return quad;
}

@compute @workgroup_size(256)
fn main(
    @builtin(local_invocation_index) lane: u32,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
) {
    var walk = begin_walk(lane, workgroup.x + workgroup.y * workgroups.x);
    let quads = quads_of_row(walk.row, walk.count);
    var first = vec4<f32>(0.0);
    if (quads > 0u) {
        first = load_x(walk.x);
    }
    // A stand-in equals the first quad and so adds nothing to the first sum.
    var values: array<vec4<f32>, 16>;
    for (var i = 0u; i < 16u; i++) {
        values[i] = next_quad(&walk, first);
    }
    var from_first = vec4<f32>(0.0);
    var flags = vec4<f32>(0.0);
    for (var i = 0u; i < 16u; i += 4u) {
        from_first += ((values[i] - first) + (values[i + 1u] - first)) + ((values[i + 2u] - first) + (values[i + 3u] - first));
        flags += (flags_of(values[i]) + flags_of(values[i + 1u])) + (flags_of(values[i + 2u]) + flags_of(values[i + 3u]));
    }
    let mean = first + from_first / f32(max(quads, 1u));
    var sum = vec4<f32>(0.0);
    var squares = vec4<f32>(0.0);
    for (var i = 0u; i < 16u; i += 4u) {
        let a = values[i] - mean;
        let b = select(vec4<f32>(0.0), values[i + 1u] - mean, i + 1u < quads);
        let c = select(vec4<f32>(0.0), values[i + 2u] - mean, i + 2u < quads);
        let d = select(vec4<f32>(0.0), values[i + 3u] - mean, i + 3u < quads);
        let e = select(vec4<f32>(0.0), a, i < quads);
        sum += (e + b) + (c + d);
        squares += (e * e + b * b) + (c * c + d * d);
    }
    let own = array<vec4<f32>, SUMS>(mean, sum, squares, flags);
    let sums = merge_over_rows(own, walk);
    if (walk.row > 0u || walk.count == 0u) {
        return;
    }
    if (params.four_channels == 0u) {
        partial[walk.tile * params.channels + walk.channel] = merged_columns(sums, f32(walk.count));
        return;
    }
    for (var i = 0u; i < 4u; i++) {
        let at = walk.tile * params.channels + 4u * walk.channel + i;
        partial[at] = vec4<f32>(sums[0][i], sums[1][i], sums[2][i], sums[3][i]);
    }
}
