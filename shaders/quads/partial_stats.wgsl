// Partial statistics of every tile from one read of memory, four values at a time: mean m, Σ(x − m), Σ(x − m)², and a flag
// for NaN or Inf.
//
// An invocation holds 16 quads in registers. It takes the mean of each of the four columns of its values relative to the
// first, rounded to f32 (exact for a constant), then Σ(x − m) and Σ(x − m)²: what rounding takes from the mean is carried by
// the first sum. Merging moves to the count-weighted mean of the merged, formed relative to the first of them, by
// d = m − new mean: Σ(x − m) + n·d and Σ(x − m)² + d·(2Σ(x − m) + n·d).
// Dispatch: one workgroup per 256/rows channels and tile. `combine_stats` runs next, unless a channel has one tile.

@group(0) @binding(2) var<storage, read_write> partial: array<vec4<f32>>;   // (tiles, C) of (m, Σ(x − m), Σ(x − m)², flag)

// Mean, Σ(x − m), Σ(x − m)², flag.
const SUMS: u32 = 4u;

// Quads that one row of a tile has.
fn quads_of_row(row: u32, count: u32) -> u32 {
    return (max(count, row) - row + params.rows - 1u) / params.rows;
}

// Quads of rows that follow each other.
fn quads_of_rows(first: u32, rows: u32, count: u32) -> f32 {
    // All rows have a quad of every full step, some one more.
    let full = count / params.rows;
    let more = count % params.rows;
    return f32(full * rows + min(max(more, first) - first, rows));
}

fn merged(first: u32, step: u32, count: u32, walk: Walk) -> array<vec4<f32>, SUMS> {
    let stride = 1u << params.columns_log2;
    let first_mean = entries[first * stride + walk.column][0];
    var offset = vec4<f32>(0.0);
    var weight = 0.0;
    for (var i = 0u; i < count; i++) {
        let row = first + i * step;
        let n = quads_of_rows(row, step, walk.count);
        offset += n * (entries[row * stride + walk.column][0] - first_mean);
        weight += n;
    }
    let mean = first_mean + offset / max(weight, 1.0);
    // What moving adds to the squares is summed apart: where one value outweighs all others, it is many small terms, and
    // each would be rounded to the last place of the large one.
    var total = array<vec4<f32>, SUMS>(mean, vec4<f32>(0.0), vec4<f32>(0.0), vec4<f32>(0.0));
    var moved = vec4<f32>(0.0);
    for (var i = 0u; i < count; i += 4u) {
        var batch: array<vec4<f32>, SUMS>;
        for (var j = i; j < min(i + 4u, count); j++) {
            let row = first + j * step;
            let entry = entries[row * stride + walk.column];
            let d = entry[0] - mean;
            let shift = quads_of_rows(row, step, walk.count) * d;
            batch[0] += d * (2.0 * entry[1] + shift);
            batch[1] += entry[1] + shift;
            batch[2] += entry[2];
            batch[3] += entry[3];
        }
        moved += batch[0];
        total[1] += batch[1];
        total[2] += batch[2];
        total[3] += batch[3];
    }
    total[2] += moved;
    return total;
}

// The four columns as one.
fn merged_columns(sums: array<vec4<f32>, SUMS>, quads: f32) -> vec4<f32> {
    let apart = sums[0] - vec4<f32>(sums[0].x);
    let mean = sums[0].x + ((apart.x + apart.y) + (apart.z + apart.w)) * 0.25;
    let d = sums[0] - vec4<f32>(mean);
    let shift = quads * d;
    let first = sums[1] + shift;
    let second = sums[2] + d * (2.0 * sums[1] + shift);
    return vec4<f32>(
        mean,
        (first.x + first.y) + (first.z + first.w),
        (second.x + second.y) + (second.z + second.w),
        (sums[3].x + sums[3].y) + (sums[3].z + sums[3].w),
    );
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
