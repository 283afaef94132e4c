// The first level of merging: the four lanes of a tile whose numbers differ in the last two bits.

#if SUBGROUPS
// By subgroup shuffles, in registers: the four are neighbours of a subgroup, of whatever size. Only
// the first of them goes on.
fn hold_fours(own: array<Entry, SUMS>, walk: Walk, stride: u32, channels: u32) {
    let a = own[0];
    let b = subgroupShuffleXor(a, 1u);
    let c = subgroupShuffleXor(a, 2u);
    let d = subgroupShuffleXor(a, 3u);
    if (walk.lane % 4u == 0u) {
        entries[walk.lane / 4u * channels + walk.tile_slot] = merged_four(a, b, c, d);
    }
}

fn four(at: u32, stride: u32) -> vec4<f32> {
    return entries[at];
}
#else
// By way of workgroup memory: the lanes of a four have the stride of all fours, so that
// neighbouring invocations read neighbouring entries, without bank conflicts.
fn hold_fours(own: array<Entry, SUMS>, walk: Walk, stride: u32, channels: u32) {
    hold(own, walk.lane % 4u * stride + walk.lane / 4u * channels + walk.tile_slot * SUMS);
}

fn four(at: u32, stride: u32) -> vec4<f32> {
    return merged_four(
        entries[at],
        entry_if(params.lanes_per_tile > 1u, at + stride),
        entry_if(params.lanes_per_tile > 2u, at + 2u * stride),
        entry_if(params.lanes_per_tile > 2u, at + 3u * stride),
    );
}
#endif
