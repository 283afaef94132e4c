// Finishes the gradient sums of a single rank with one tile per channel, in the kernel that sums
// them: the work of `finalize_grad`. No sums of ranks are bound, and no bias beside a mask.

#import rank_gradients
#if FUSED
#import write_grad_input
#endif

#if !NO_BIAS
@group(0) @binding(3) var<storage, read> bias: array<f32>;              // (C), or a dummy
#endif
@group(0) @binding(5) var<storage, read> weight: array<f32>;            // (C), or a dummy
#if !FUSED
@group(0) @binding(6) var<storage, read_write> grad_centering: array<GradCenterBits>;   // (C)
#endif
// (C), bits of f32, or a dummy
@group(0) @binding(7) var<storage, read_write> grad_weight: array<u32>;
// (C), bits of f32, or a dummy
@group(0) @binding(8) var<storage, read_write> grad_bias: array<u32>;

fn center_at(channel: u32) -> CenterBits {
    let entry = centering[channel];
    return CenterBits(
        bitcast<u32>(entry.pivot),
        bitcast<u32>(entry.rest),
        bitcast<u32>(entry.inv_std),
        bitcast<u32>(entry.unit),
    );
}
