// Asks where the activation is active in backward: v by the kernels' own source, in the surroundings of `grad_input`.
//
// Dispatch: 1 workgroup, an invocation per channel. The answer is the gradient of the residual and that of the input of every
// value, by their bits.

#import affine
#import activation

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) lane: u32) {
    let affine = affine_of(lane);
    for (var i = 0u; i < params.values; i++) {
        let at = lane * params.values + i;
        let x = values[at].x;
        let grad_output = values[at].grad_output;
        let g = select(scaled_by_slope(grad_output), grad_output, is_active(value_of(x, at, affine)));
        let deviation = difference(difference(x, affine.pivot), affine.rest);
        let from_statistics = params.mean_dy + deviation * params.projection;
        answer[2u * at] = bitcast<u32>(g);
        answer[2u * at + 1u] = bitcast<u32>(affine.scale * (g - from_statistics)) | affine.not_finite;
    }
}
