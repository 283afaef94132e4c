// The first four rows of a tile to merge: those whose numbers differ in the last two bits.

#if SUBGROUPS
// In registers: they are neighbours of a subgroup, of whatever size. Only the first of them goes
// on.
fn hold_fours(own: array<vec4<f32>, SUMS>, walk: Walk, stride: u32, channels: u32) {
    let a = own[0];
    let b = subgroupShuffleXor(a, 1u);
    let c = subgroupShuffleXor(a, 2u);
    let d = subgroupShuffleXor(a, 3u);
    if (walk.row % 4u == 0u) {
        entries[walk.row / 4u * channels + walk.column] = merged_four(a, b, c, d);
    }
}

fn four(at: u32, stride: u32) -> vec4<f32> {
    return entries[at];
}
#else
// By way of workgroup memory: the rows of a four lie `stride` from each other, so that neighbours
// read next to each other.
fn hold_fours(own: array<vec4<f32>, SUMS>, walk: Walk, stride: u32, channels: u32) {
    hold(own, walk.row % 4u * stride + walk.row / 4u * channels + walk.column * SUMS);
}

fn four(at: u32, stride: u32) -> vec4<f32> {
    return merged_four(
        entries[at],
        entry_if(params.rows > 1u, at + stride),
        entry_if(params.rows > 2u, at + 2u * stride),
        entry_if(params.rows > 2u, at + 3u * stride),
    );
}
#endif
