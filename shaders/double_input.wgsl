// One of the gradients that double backward writes: that of x, or that of grad_output.
//
// Dispatch: as `normalize`. Nothing runs next: grad_input is the result.

#import tile
#import load(x)
#import double_gradient
#import store

// (N, C, L), laid out as x
@group(0) @binding(8) var<storage, read_write> grad_input: array<Stored>;

// A word of a mask by invocation holds the values of one lane.
const LANES_PER_WORD: u32 = 1u;

//     coefficients of the channel                        once per lane
//     for the lane's elements, up to 16 quads or 32 single values:
//         grad_input = the gradient                      parts/double_gradient.wgsl
//
// As fast as `grad_input`, for the same reasons: memory-bound, x, the cotangent and for the
// gradient of x grad_output are loaded once and coalesced, coefficients are in registers.
@compute @workgroup_size(256)
fn main(
    @builtin(local_invocation_index) invocation: u32,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
) {
    var walk = begin_walk_from_last(invocation, workgroup.x + workgroup.y * workgroups.x);
    if (!is_inside(walk)) {
        return;
    }
    let coefficients = double_coefficients_of(walk.channel);
    begin_upstream(walk, invocation);
    for (var i = 0u; i < params.values_per_lane; i++) {
        if (!is_inside(walk)) {
            break;
        }
        grad_input[walk.x] = stored(double_gradient_at(walk.x, walk.g, i, coefficients));
        step_walk(&walk);
    }
}
