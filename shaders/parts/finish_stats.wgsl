// Finishes the statistics of a single rank with one tile per channel, in the kernel that sums it:
// the work of `finalize_stats`, with its bindings but for the sums of ranks and their weights.

#import running
#import rank_stats
#if FUSED
#import write_y
#endif

#if RUNNING_VECTORS
@group(0) @binding(2) var<storage, read> running_mean: array<u32>;             // (C), bits of f32
@group(0) @binding(3) var<storage, read> running_variance: array<u32>;         // (C), bits of f32
@group(0) @binding(4) var<storage, read_write> centering: array<CenterBits>;   // (C)
@group(0) @binding(5) var<storage, read_write> next_mean: array<u32>;          // (C), bits of f32
@group(0) @binding(6) var<storage, read_write> next_variance: array<u32>;      // (C), bits of f32
#else
@group(0) @binding(2) var<storage, read_write> running: array<Running>;        // (C)
@group(0) @binding(3) var<storage, read_write> centering: array<CenterBits>;   // (C)
@group(0) @binding(4) var<storage, read_write> mean: array<u32>;               // (C), bits of f32
@group(0) @binding(5) var<storage, read_write> inv_std: array<u32>;            // (C), bits of f32
#endif
