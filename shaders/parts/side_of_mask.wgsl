// On which side of the activation a value was: forward's mask says so, a bit per value, 1 above 0.

@group(0) @binding(3) var<storage, read> mask: array<u32>;   // as forward wrote it

// The values of this invocation, the current step in the lowest bit.
var<private> own_sides: u32;

// A word holds 32 values of one row: one tile of a kernel that writes, two of one that sums.
fn begin_sides(walk: Walk, lane: u32) {
    if (params.mask_by_address != 0u || walk.count == 0u) {
        return;
    }
    let tiles_per_word = 32u / VALUES_PER_ROW;
    let segment = walk.tile / params.mask_segment_tiles;
    let in_segment = walk.tile % params.mask_segment_tiles;
    let word = segment * params.mask_segment_words + in_segment / tiles_per_word;
    let block = walk.channel >> params.columns_log2;
    let sides = mask[(word * params.mask_blocks + block) * 256u + lane];
    own_sides = sides >> (in_segment % tiles_per_word * VALUES_PER_ROW);
}

fn is_above(x_at: u32, step: u32, line: Line) -> bool {
    if (params.mask_by_address != 0u) {
        return ((mask[params.mask_origin + (x_at >> 5u)] >> (x_at & 31u)) & 1u) != 0u;
    }
    return ((own_sides >> step) & 1u) != 0u;
}
