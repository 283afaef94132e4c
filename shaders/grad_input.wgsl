// grad_input = weight·inv_std·(g − mean_dy − ((x − pivot) − rest)·projection), mean = pivot + rest.
//
// mean_dy = A/N and projection = inv_std²·B/N come from the group's sums A = Σg, B = Σ g·(x − mean); both are 0, and x is
// not read, where the statistics were constants. A channel that is not finite arrives with a NaN inv_std.
// Dispatch: as `partial_grad_sums`, the last tiles first, because the sums read them last. The result is the output.

struct GradCentering {
    pivot: f32,
    rest: f32,
    inv_std: f32,
    mean_dy: f32,
    projection: f32,
}

@group(0) @binding(1) var<storage, read> grad_output: array<f32>;           // (N, C, L)
@group(0) @binding(2) var<storage, read> x: array<f32>;                     // (N, C, L)
@group(0) @binding(3) var<storage, read> centering: array<GradCentering>;   // (C)
@group(0) @binding(4) var<storage, read> weight: array<f32>;                // (C), or anything where has_weight is 0
@group(0) @binding(5) var<storage, read_write> grad_input: array<f32>;      // (N, C, L)

@compute @workgroup_size(256)
fn main(
    @builtin(local_invocation_index) lane: u32,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
) {
    let index = workgroup.x + workgroup.y * workgroups.x;
    let last = params.blocks * params.tiles - 1u;
    if (index > last) {
        return;
    }
    var walk = begin_walk(lane, last - index);
    if (!is_inside(walk)) {
        return;
    }
    let center = centering[walk.channel];
    var scale = center.inv_std;
    if (params.has_weight != 0u) {
        scale *= weight[walk.channel];
    }
    let poisoned = is_not_finite(center.inv_std);
    for (var i = 0u; i < VALUES_PER_ROW; i++) {
        if (!is_inside(walk)) {
            break;
        }
        var pull = 0.0;
        if (params.has_batch_statistics != 0u) {
            let from_mean = (x[walk.address] - center.pivot) - center.rest;
            pull = center.mean_dy + from_mean * center.projection;
        }
        let value = scale * (grad_output[walk.address] - pull);
        grad_input[walk.address] = select(value, center.inv_std, poisoned);
        step_walk(&walk);
    }
}
