// The gradient of the input, and where it is wanted that of the residual:
// grad_input = weight·inv_std·(g − mean_dy − (x − mean)·projection), grad_residual = g, with g the
// gradient before the activation.
//
// Dispatch: as `normalize`. Nothing runs next: grad_input and grad_residual are the result.

#import tile
#import load(x)
#import gradient
#import store

// (N, C, L), laid out as x
@group(0) @binding(7) var<storage, read_write> grad_input: array<Stored>;
#if GRAD_RESIDUAL
// (N, C, L), laid out as x
@group(0) @binding(8) var<storage, read_write> grad_residual: array<Stored>;
#endif

// A word of a mask by invocation holds the values of one lane.
const LANES_PER_WORD: u32 = 1u;

//     coefficients of the channel                        once per lane
//     for the lane's elements, up to 16 quads or 32 single values:
//         g             = grad_output, times the slope where the activation was not active
//         grad_input    = factor·(g − (mean_dy + ((x·unit − pivot) − rest)·projection))
//         grad_residual = g
//     for those behind that are padded:  both = 0, and nothing is loaded
//
// Why it is fast: the kernel is memory-bound. It loads grad_output and x once and stores what is
// wanted once, all coalesced; where the statistics were constants and v is not formed again, x is
// not loaded.
// * Coefficients are in registers, nothing is divided per element, and occupancy is high.
// * A mask by invocation is one word per lane, loaded before the loop.
// * The last tiles go first, as in `normalize`: the sums have read them last.
@compute @workgroup_size(256)
fn main(
    @builtin(local_invocation_index) invocation: u32,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
) {
    var walk = begin_walk_from_last(invocation, workgroup.x + workgroup.y * workgroups.x);
    if (walk.at >= walk.stop) {
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
#if TAILS
    if (is_at_tail(walk)) {
        let counted = counted_values(walk.tail);
        let x = x_of_gradient(walk.x);
        let g = upstream(x, walk.x, walk.g, step_of(walk), coefficients.affine);
        let gradient = gradient_of(x, g, coefficients);
        grad_input[walk.x] = stored(choose_element(U(0u), gradient, counted));
#if GRAD_RESIDUAL
        grad_residual[walk.x] = stored(choose_element(U(0u), bitcast<U>(g), counted));
#endif
        step_walk(&walk);
    }
#endif
    for (; walk.at < walk.stop;) {
        grad_input[walk.x] = stored(U(0u));
#if GRAD_RESIDUAL
        grad_residual[walk.x] = stored(U(0u));
#endif
        step_walk(&walk);
    }
}
