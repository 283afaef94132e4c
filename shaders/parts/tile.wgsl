// The walk over one tile of one channel, shared by every kernel that touches activations.
//
// The values of a channel are numbered i = n·L + l over its N·L values; value i lies at (n·C + c)·L + l. A tile is
// `rows`·16 consecutive values: row r of a tile holds the values r, r + rows, r + 2·rows … of it, so that neighbouring
// rows read neighbouring addresses. A workgroup holds 256/rows tiles side by side: the same tile of neighbouring
// channels, which lie next to each other in memory where L is small.

struct TileParams {
    channels: u32,        // C
    inner: u32,           // L
    values: u32,          // N·L
    tiles: u32,           // tiles per channel
    rows: u32,            // invocations per tile, a power of two
    columns_log2: u32,    // log2 of the tiles side by side in a workgroup
    blocks: u32,          // workgroups that cover all channels once
    step_inner: u32,      // rows mod L: what one step adds to l
    step_address: u32,    // what one step adds to the address
    wrap_address: u32,    // what is added when l passes L: to the next sample
    has_weight: u32,      // 1 where a weight is bound, else it counts as 1
    has_bias: u32,        // 1 where a bias is bound, else it counts as 0
    has_batch_statistics: u32,   // 1 where the statistics depend on x, 0 where they are constants for the gradient
}

@group(0) @binding(0) var<uniform> params: TileParams;

// Values that one invocation holds in registers.
const VALUES_PER_ROW: u32 = 16u;

// Where one invocation stands, and how it goes on.
struct Walk {
    channel: u32,
    tile: u32,
    column: u32,          // tile within the workgroup
    row: u32,             // invocation within the tile
    count: u32,           // values of the tile; 0 past the last channel or tile
    first: u32,           // address of the tile's first value
    at: u32,              // number of the current value within the tile
    inner: u32,           // l of the current value
    address: u32,         // address of the current value
}

fn begin_walk(lane: u32, workgroup: u32) -> Walk {
    var walk: Walk;
    walk.column = lane & ((1u << params.columns_log2) - 1u);
    walk.row = lane >> params.columns_log2;
    walk.channel = ((workgroup % params.blocks) << params.columns_log2) + walk.column;
    walk.tile = workgroup / params.blocks;
    if (walk.channel < params.channels && walk.tile < params.tiles) {
        let start = walk.tile * params.rows * VALUES_PER_ROW;
        walk.count = min(params.values - start, params.rows * VALUES_PER_ROW);
        walk.first = address_of(start, walk.channel);
        walk.at = walk.row;
        walk.inner = (start + walk.row) % params.inner;
        walk.address = address_of(start + walk.row, walk.channel);
    }
    return walk;
}

fn address_of(value: u32, channel: u32) -> u32 {
    let sample = value / params.inner;
    return (sample * params.channels + channel) * params.inner + (value - sample * params.inner);
}

// Moves on by `rows` values, to this invocation's next one.
fn step_walk(walk: ptr<function, Walk>) {
    (*walk).at += params.rows;
    (*walk).inner += params.step_inner;
    (*walk).address += params.step_address;
    if ((*walk).inner >= params.inner) {
        (*walk).inner -= params.inner;
        (*walk).address += params.wrap_address;
    }
}

fn is_inside(walk: Walk) -> bool {
    return walk.at < walk.count;
}
