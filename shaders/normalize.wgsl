// y = (x − pivot)·scale + shift with scale = weight·inv_std, shift = bias − rest·scale, mean = pivot + rest.
//
// x − pivot is exact where x is near the mean, so that nothing of y is lost to a large mean. A channel that is not
// finite arrives with a NaN inv_std and is NaN as a whole.
// Dispatch: as `partial_stats`, the last tiles first, because the statistics read them last. The result is the output.

@group(0) @binding(1) var<storage, read> x: array<f32>;                  // (N, C, L)
@group(0) @binding(2) var<storage, read> centering: array<Centering>;    // (C)
@group(0) @binding(3) var<storage, read> weight: array<f32>;             // (C), or anything where has_weight is 0
@group(0) @binding(4) var<storage, read> bias: array<f32>;               // (C), or anything where has_bias is 0
@group(0) @binding(5) var<storage, read_write> y: array<f32>;               // (N, C, L)

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
    var shift = -center.rest * scale;
    if (params.has_bias != 0u) {
        shift += bias[walk.channel];
    }
    let poisoned = is_not_finite(center.inv_std);
    for (var i = 0u; i < VALUES_PER_ROW; i++) {
        if (!is_inside(walk)) {
            break;
        }
        let value = (x[walk.address] - center.pivot) * scale + shift;
        y[walk.address] = select(value, center.inv_std, poisoned);
        step_walk(&walk);
    }
}
