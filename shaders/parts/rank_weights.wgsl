// The sums of all ranks of one device, and the weight of each rank in their merge.

struct RankWeight {
    count: f32,    // values per channel of the rank; without any, its sums are not written
    weight: f32,   // count / values per channel of all ranks that merge with it
}

// (ranks, C), one rank every params.rank_stride entries
@group(0) @binding(1) var<storage, read> locals: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> rank_weights: array<RankWeight>;   // (ranks)

fn sums_of(rank: u32, channel: u32) -> vec4<f32> {
    return locals[rank * params.rank_stride + channel];
}
