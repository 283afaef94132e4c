// Four rows merge in registers: they are neighbours of a subgroup, of whatever size. Only the first of them goes on.

fn hold_fours(own: array<vec4<f32>, SUMS>, walk: Walk, apart: u32, side_by_side: u32) {
    let a = own[0];
    let b = subgroupShuffleXor(a, 1u);
    let c = subgroupShuffleXor(a, 2u);
    let d = subgroupShuffleXor(a, 3u);
    if (walk.row % 4u == 0u) {
        entries[walk.row / 4u * side_by_side + walk.column] = merged_four(a, b, c, d);
    }
}

fn four(at: u32, apart: u32) -> vec4<f32> {
    return entries[at];
}
