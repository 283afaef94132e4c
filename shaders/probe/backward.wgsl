// Asks where the activation is active in backward: v by the kernels' own source, in the
// surroundings of `grad_input`, whose result is formed by its own source too.
//
// Dispatch: 1 workgroup, an invocation per channel. The answer is the gradient of the residual and
// that of the input of every value, by their bits.

#import input_gradient
#import activation

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) invocation: u32) {
    let affine = affine_of(invocation);
    let factor = affine.scale * affine.unit;
    let coefficients = GradCoefficients(
        affine,
        params.mean_dy,
        params.projection,
        factor,
        affine.not_finite,
    );
    for (var i = 0u; i < params.values; i++) {
        let at = invocation * params.values + i;
        let x = values[at].x;
        let grad_output = values[at].grad_output;
        let g = select(
            scaled_by_slope(grad_output),
            grad_output,
            is_active(value_of(x, at, affine)),
        );
        answer[2u * at] = bitcast<u32>(g);
        answer[2u * at + 1u] = gradient_of(x, g, coefficients);
    }
}
