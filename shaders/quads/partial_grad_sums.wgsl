// Partial gradient sums of every tile, four values at a time: Σg and Σ g·(x − pivot), each with a flag for NaN or Inf; g
// before the activation.
//
// The host adds what the pivot lacks to the mean: Σ g·(x − mean) = Σ g·(x − pivot) − rest·Σg.
// Dispatch: one workgroup per 256/rows channels and tile. `combine_grad_sums` runs next, unless a channel has one tile.

@group(0) @binding(4) var<storage, read> centering: array<Centering>;       // (C)
@group(0) @binding(5) var<storage, read> weight: array<f32>;                // (C), or anything where has_weight is 0
@group(0) @binding(6) var<storage, read> bias: array<f32>;                  // (C), or anything where has_bias is 0
@group(0) @binding(7) var<storage, read_write> partial: array<vec4<f32>>;   // (tiles, C) of (Σg, Σ g·(x − pivot), flag of g, flag of x)

// Σg, Σ g·(x − pivot), flags of g, flags of x.
const SUMS: u32 = 4u;

fn merged(first: u32, step: u32, count: u32, walk: Walk) -> array<vec4<f32>, SUMS> {
    let stride = 1u << params.columns_log2;
    var total: array<vec4<f32>, SUMS>;
    for (var i = 0u; i < count; i += 4u) {
        var batch: array<vec4<f32>, SUMS>;
        for (var j = i; j < min(i + 4u, count); j++) {
            let entry = entries[(first + j * step) * stride + walk.column];
            batch[0] += entry[0];
            batch[1] += entry[1];
            batch[2] += entry[2];
            batch[3] += entry[3];
        }
        total[0] += batch[0];
        total[1] += batch[1];
        total[2] += batch[2];
        total[3] += batch[3];
    }
    return total;
}

fn sum_of_four(v: vec4<f32>) -> f32 {
    return (v.x + v.y) + (v.z + v.w);
}

@compute @workgroup_size(256)
fn main(
    @builtin(local_invocation_index) lane: u32,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
) {
    var walk = begin_walk(lane, workgroup.x + workgroup.y * workgroups.x);
    var own: array<vec4<f32>, SUMS>;
    if (is_inside(walk)) {
        let line = line_of(walk.channel);
        begin_sides(walk, lane);
        for (var i = 0u; i < VALUES_PER_ROW; i += 4u) {
            // Four by four, so that few roundings meet in a row.
            var batch: array<vec4<f32>, SUMS>;
            for (var j = i; j < i + 4u; j++) {
                if (!is_inside(walk)) {
                    break;
                }
                let x = load_x(walk.x);
                let g = upstream(x, walk, j, line);
                batch[0] += g;
                batch[1] += g * (x - line.pivot);
                batch[2] += flags_of(g);
                batch[3] += flags_of(x);
                step_walk(&walk);
            }
            own[0] += batch[0];
            own[1] += batch[1];
            own[2] += batch[2];
            own[3] += batch[3];
        }
    }
    let sums = merge_over_rows(own, walk);
    if (walk.row > 0u || walk.count == 0u) {
        return;
    }
    if (params.four_channels == 0u) {
        partial[walk.tile * params.channels + walk.channel] =
            vec4<f32>(sum_of_four(sums[0]), sum_of_four(sums[1]), sum_of_four(sums[2]), sum_of_four(sums[3]));
        return;
    }
    for (var i = 0u; i < 4u; i++) {
        let at = walk.tile * params.channels + 4u * walk.channel + i;
        partial[at] = vec4<f32>(sums[0][i], sums[1][i], sums[2][i], sums[3][i]);
    }
}
