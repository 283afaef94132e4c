// Asks where the activation is active in forward: v by the kernels' own source, in the surroundings
// of `normalize`.
//
// Dispatch: 1 workgroup, an invocation per channel. The answer is y of every value, by its bits.

#import affine
#import activation

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) invocation: u32) {
    let affine = affine_of(invocation);
    for (var i = 0u; i < params.values; i++) {
        let at = invocation * params.values + i;
        answer[at] = activated(value_of(values[at].x, at, affine));
    }
}
