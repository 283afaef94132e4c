// Centering of every channel from the running statistics: mean and 1/√(var + eps).
//
// Dispatch: one workgroup per 256 channels, an invocation per channel. `normalize` runs next;
// `mean` and `inv_std` are for applications.

#import params
#import channel
#import running
#import center

#if RUNNING_VECTORS
@group(0) @binding(1) var<storage, read> running_mean: array<u32>;             // (C), bits of f32
@group(0) @binding(2) var<storage, read> running_variance: array<u32>;         // (C), bits of f32
@group(0) @binding(3) var<storage, read_write> centering: array<CenterBits>;   // (C)
#else
@group(0) @binding(1) var<storage, read> running: array<Running>;              // (C)
@group(0) @binding(2) var<storage, read_write> centering: array<CenterBits>;   // (C)
@group(0) @binding(3) var<storage, read_write> mean: array<u32>;               // (C), bits of f32
@group(0) @binding(4) var<storage, read_write> inv_std: array<u32>;            // (C), bits of f32
#endif

// It reads two values per channel, so its time is that of a dispatch.
@compute @workgroup_size(256)
fn main(
    @builtin(local_invocation_index) invocation: u32,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
) {
    let channel = channel_of(invocation, workgroup, workgroups);
    if (channel >= params.channels) {
        return;
    }
#if RUNNING_VECTORS
    let mean_bits = running_mean[channel];
    let variance_bits = running_variance[channel];
#else
    let mean_bits = running[channel].mean;
    let variance_bits = running[channel].variance;
#endif
    let pivot = bitcast<f32>(mean_bits);
    let variance = bitcast<f32>(variance_bits);
    let is_infinite = variance_bits == EXPONENT;
    let var_not_finite = is_not_finite(variance) || variance + params.eps < 0.0;
    let not_finite = is_not_finite(pivot) || (var_not_finite && !is_infinite);
    // An infinite deviation leaves the bias.
    let root = select(inverse_root(variance, params.eps, params.eps_rest), 0.0, is_infinite);
    let center = center_of(pivot, 0.0, root, not_finite);
    centering[channel] = center;
#if !RUNNING_VECTORS
    mean[channel] = mean_of(center);
    inv_std[channel] = center.inv_std;
#endif
}
