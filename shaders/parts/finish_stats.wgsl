// What the kernel that sums the only rank, of one tile per channel, makes of its statistics: what
// `finalize_stats` would, with its bindings but for the sums of ranks and their weights; and, where
// it writes y too, those of that.

#import running
#import rank_stats
#if WRITES
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
