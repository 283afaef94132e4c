// The walk over the tiles of a channel, shared by the kernels that combine them.
//
// A row takes every rows-th tile; a workgroup holds 256/rows channels side by side.

#import params
#import reduce
#import choose

// Tiles summed up before they join the row's sum, so that its rounding grows with tiles/16 and not
// with tiles.
const BATCH: u32 = 16u;

struct Place {
    channel: u32,
    column: u32,          // channel within the workgroup
    row: u32,             // invocation within the channel
    tiles: u32,           // tiles to combine; 0 past the last channel
}

fn locate(lane: u32, workgroup: u32) -> Place {
    var place: Place;
    place.column = lane & ((1u << params.columns_log2) - 1u);
    place.row = lane >> params.columns_log2;
    place.channel = (workgroup << params.columns_log2) + place.column;
    place.tiles = choose(0u, params.tiles, place.channel < params.channels);
    return place;
}

// The tile after the batch that starts with `start`.
fn end_of_batch(start: u32, tiles: u32) -> u32 {
    return min(tiles, start + BATCH * params.rows);
}
