// Parameters of the kernels that make what normalizes on the device, and running statistics as they lie there.

struct FinalizeParams {
    channels: u32,        // C
    first_rank: u32,      // the ranks that merge
    end_rank: u32,
    pivot_rank: u32,      // that of them with most values
    rank_stride: u32,     // quadruples from one rank's sums to the next rank's
    count: f32,           // N, values per channel of these ranks together
    divisor: f32,         // of m2, for the variance that the running one follows: N − 1 or N
    eps: f32,
    keep: f32,            // weight of the old running value, 1 − f
    follow: f32,          // f, weight of the batch
    is_cumulative: u32,   // 1 where f = 1/batches instead
    tracks: u32,          // 1 where the running statistics follow
}

@group(0) @binding(0) var<uniform> params: FinalizeParams;

// The counter lies with every channel, so that every invocation reads and writes what is its own.
struct Running {
    mean: u32,            // bits of a f32
    variance: u32,        // bits of a f32
    batches_low: u32,     // batches counted, in two words
    batches_high: u32,
}
