// Four rows merge by way of workgroup memory: those of one lie `apart`, so that neighbours read next to each other.

fn hold_fours(own: array<vec4<f32>, SUMS>, walk: Walk, apart: u32, side_by_side: u32) {
    hold(own, walk.row % 4u * apart + walk.row / 4u * side_by_side + walk.column * SUMS);
}

fn four(at: u32, apart: u32) -> vec4<f32> {
    return merged_four(
        entries[at],
        entry_if(params.rows > 1u, at + apart),
        entry_if(params.rows > 2u, at + 2u * apart),
        entry_if(params.rows > 2u, at + 3u * apart),
    );
}
