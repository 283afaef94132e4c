// The gradient of the input, and where it is wanted that of the residual.
//
// Dispatch: as `normalize`. The result is the output.

#import tile
#import load(x)
#import gradient
#import store

@group(0) @binding(7) var<storage, read_write> grad_input: array<Stored>;      // (N, C, L) in the layout of x
#if GRAD_RESIDUAL
@group(0) @binding(8) var<storage, read_write> grad_residual: array<Stored>;   // (N, C, L) in the layout of x
#endif

// A word of the mask holds the values of one lane.
const LANES_PER_WORD: u32 = 1u;

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
    let coefficients = grad_coefficients_of(walk.channel);
    begin_upstream(walk, invocation);
    for (var i = 0u; i < params.values_per_lane; i++) {
        if (!is_inside(walk)) {
            break;
        }
        let x = x_of_gradient(walk.x);
        let g = upstream(x, walk.x, walk.g, i, coefficients.affine);
        grad_input[walk.x] = stored(gradient_of(x, g, coefficients));
#if GRAD_RESIDUAL
        grad_residual[walk.x] = stored(bitcast<U>(g));
#endif
        step_walk(&walk);
    }
}
