// The sums of all ranks of one device, and the weight of each rank in their merge. A single rank's
// sums may be those that an invocation has merged of its tiles, or of the lanes of its only tile.

#import settled

struct RankWeight {
    count: f32,    // values per channel of the rank; without any, its sums are not written
    weight: f32,   // count / values per channel of all ranks that merge with it
}

#if FINISHES
fn weight_of(rank: u32) -> RankWeight {
    return RankWeight(params.count, 1.0);
}
#else
@group(0) @binding(2) var<storage, read> rank_weights: array<RankWeight>;   // (ranks)

fn weight_of(rank: u32) -> RankWeight {
    return rank_weights[rank];
}
#endif

#if ONE_RANK
var<private> sums_of_rank: vec4<f32>;

// Settled, as sums are that pass through memory.
fn sums_of(rank: u32, channel: u32) -> vec4<f32> {
    return settled_vec4(sums_of_rank);
}
#else
// (ranks, C), one rank every params.rank_stride entries
@group(0) @binding(1) var<storage, read> locals: array<vec4<f32>>;

fn sums_of(rank: u32, channel: u32) -> vec4<f32> {
    return locals[rank * params.rank_stride + channel];
}
#endif
