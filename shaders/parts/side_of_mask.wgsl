// On which side of the activation a value was: forward's mask says so, a bit per value, 1 above 0.

@group(0) @binding(3) var<storage, read> mask: array<u32>;   // as forward wrote it

// The values of this invocation, the current step in the lowest bit.
var<private> own_sides: u32;

// A word holds 32 values of one row of a kernel that writes: of two rows of one that sums, whose tiles and runs are half as
// large.
fn begin_sides(walk: Walk, lane: u32) {
    if (MASK_BY_ADDRESS || walk.count == 0u) {
        return;
    }
    let segment = walk.tile / params.mask_segment_tiles;
    let in_segment = walk.tile % params.mask_segment_tiles;
    let tile = segment * params.mask_segment_words + in_segment / ROWS_PER_WORD;
    let in_run = walk.row & ((1u << params.run_log2) - 1u);
    // Runs from the beginning of the tile that the mask knows.
    let run = (in_segment % ROWS_PER_WORD * params.rows + walk.row) >> params.run_log2;
    let row = (run / ROWS_PER_WORD << params.run_log2) | in_run;
    let block = walk.channel >> params.columns_log2;
    let sides = mask[(tile * params.mask_blocks + block) * 256u + lane_of(row, walk.column)];
    own_sides = sides >> (run % ROWS_PER_WORD * params.row_values);
}

fn is_above(x_at: u32, step: u32, line: Line) -> bool {
    if (MASK_BY_ADDRESS) {
        return ((mask[params.mask_origin + (x_at >> 5u)] >> (x_at & 31u)) & 1u) != 0u;
    }
    return ((own_sides >> step) & 1u) != 0u;
}
