// How statistics of rows merge: they move to the count-weighted mean of all, formed relative to the first of them.
//
// By d = m − new mean, Σ(x − m) becomes Σ(x − m) + n·d, and Σ(x − m)² becomes Σ(x − m)² + d·(2Σ(x − m) + n·d).

// Mean, Σ(x − m), Σ(x − m)², flag.
const SUMS: u32 = 4u;

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
