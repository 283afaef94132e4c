// The gradient of the input, four values at a time, and where it is wanted that of the residual.
//
// grad_input = weight·inv_std·(g − mean_dy − ((x − pivot) − rest)·projection), mean = pivot + rest. mean_dy = A/N and
// projection = inv_std²·B/N come from the group's sums A = Σg, B = Σ g·(x − mean); both are 0, and x is not read for them,
// where the statistics were constants. A channel that is not finite arrives with a NaN inv_std, one whose sums are not with
// a NaN mean_dy: its grad_input is NaN, but g is as forward's activation says.
// Dispatch: as `normalize`. The result is the output.

struct GradCentering {
    pivot: f32,
    rest: f32,
    inv_std: f32,
    mean_dy: f32,
    projection: f32,
}

@group(0) @binding(4) var<storage, read> centering: array<GradCentering>;   // (C)
@group(0) @binding(5) var<storage, read> weight: array<f32>;                // (C), or anything where has_weight is 0
@group(0) @binding(6) var<storage, read> bias: array<f32>;                  // (C), or anything where has_bias is 0
@group(0) @binding(7) var<storage, read_write> grad_input: array<QUAD>;     // (N, C, L) in the layout of x, by fours

// mean_dy and projection of four values.
fn pulls_of(channel: u32) -> mat2x4<f32> {
    let a = centering[channel_of(channel, 0u)];
    if (!FOUR_CHANNELS) {
        return mat2x4<f32>(vec4<f32>(a.mean_dy), vec4<f32>(a.projection));
    }
    let b = centering[channel_of(channel, 1u)];
    let c = centering[channel_of(channel, 2u)];
    let d = centering[channel_of(channel, 3u)];
    return mat2x4<f32>(
        vec4<f32>(a.mean_dy, b.mean_dy, c.mean_dy, d.mean_dy),
        vec4<f32>(a.projection, b.projection, c.projection, d.projection),
    );
}

@compute @workgroup_size(256)
fn main(
    @builtin(local_invocation_index) lane: u32,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
) {
    let index = workgroup.x + workgroup.y * workgroups.x;
    let last = params.blocks * params.tiles - 1u;
    // Past the last workgroup the number wraps round to none that has values.
    var walk = begin_walk(lane, last - index);
    if (!is_inside(walk)) {
        return;
    }
    let line = line_of(walk.channel);
    let pulls = pulls_of(walk.channel);
    let lost = select(line.lost, vec4<u32>(NOT_FINITE), are_not_finite(pulls[0]));
    begin_sides(walk, lane);
    for (var i = 0u; i < params.row_values; i++) {
        if (!is_inside(walk)) {
            break;
        }
        let x = x_of_gradient(walk.x);
        let g = upstream(x, walk, i, line);
        var pull = vec4<f32>(0.0);
        if (HAS_BATCH_STATISTICS) {
            pull = pulls[0] + ((x - line.pivot) - line.rest) * pulls[1];
        }
        let gradient = bitcast<vec4<f32>>(bitcast<vec4<u32>>(line.scale * (g - pull)) | lost);
        grad_input[walk.x] = pack(gradient);
        keep_residual(walk.x, g);
        step_walk(&walk);
    }
}

// x is not read where nothing depends on it.
fn x_of_gradient(quad: u32) -> vec4<f32> {
    if (!HAS_BATCH_STATISTICS && !ACTIVATES) {
        return vec4<f32>(0.0);
    }
    return load_x(quad);
}
