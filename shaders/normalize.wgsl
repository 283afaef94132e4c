// The normalized, activated output, f32 storage.
//
// Dispatch: one workgroup per 256/rows channels and tile of rows·32 values, the last first, because the statistics read
// them last. The result is the output.

@group(0) @binding(3) var<storage, read> centering: array<Centering>;   // (C)
@group(0) @binding(4) var<storage, read> weight: array<f32>;            // (C), or anything where has_weight is 0
@group(0) @binding(5) var<storage, read> bias: array<f32>;              // (C), or anything where has_bias is 0
@group(0) @binding(6) var<storage, read_write> y: array<f32>;           // (N, C, L) in the layout of x

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
    var sides = 0u;
    if (is_inside(walk)) {
        let line = line_of(centering[walk.channel], walk.channel);
        for (var i = 0u; i < params.row_values; i++) {
            if (!is_inside(walk)) {
                break;
            }
            let v = value_at(walk.x, line);
            sides |= select(0u, 1u, v > 0.0) << i;
            y[walk.x] = activated(v);
            step_walk(&walk);
        }
    }
    keep_sides(walk, lane, sides);
}
