// The gradient of the input, f32 storage, and where it is wanted that of the residual.
//
// Dispatch: as `normalize`. The result is the output.

@group(0) @binding(7) var<storage, read_write> grad_input: array<f32>;   // (N, C, L) in the layout of x

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
    let pull = pull_of(walk.channel);
    begin_sides(walk, lane);
    for (var i = 0u; i < params.row_values; i++) {
        if (!is_inside(walk)) {
            break;
        }
        let both = gradients(pull, walk.x, walk.g, i);
        grad_input[walk.x] = both.x;
        keep_residual(walk.x, both.y);
        step_walk(&walk);
    }
}
