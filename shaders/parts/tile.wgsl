// The walk over one tile of one channel, shared by the kernels that sum and those that write whole words.
//
// The values of a channel are numbered i = n·L + l over its N·L values. Value i of channel c of a tensor lies at
// n·sample + c·channel + l·inner, with the tensor's strides: (C·L, L, 1) channels first, (L·C, 1, C) channels last.
// A tile is `rows`·VALUES_PER_ROW consecutive values: row r of a tile holds the values r, r + rows, r + 2·rows … of it. A workgroup
// holds 256/rows tiles side by side: the same tile of neighbouring channels, which lie next to each other in memory
// where L is small or channels are last. So neighbouring invocations read neighbouring addresses.

// Kernels of quads walk units of four values that lie next to each other: then L is in quads of positions, or C in quads of
// channels, and addresses are those of quads.
//
// A tensor beyond one binding is walked window by window: some tiles of some channels, whose memory is bound from a
// multiple of 256 elements on. `x_origin` and `g_origin` shift addresses to what is bound, modulo 2³².

// Where one invocation stands, and how it goes on.
struct Walk {
    channel: u32,
    tile: u32,            // number of the tile, in the whole tensor
    column: u32,          // tile within the workgroup
    row: u32,             // invocation within the tile
    count: u32,           // values of the tile; 0 past the last channel or tile
    first: u32,           // address of the tile's first value in x
    at: u32,              // number of the current value within the tile
    inner: u32,           // l of the current value
    x: u32,               // address of the current value in x
    g: u32,               // address of the current value in grad_output
}

fn begin_walk(lane: u32, workgroup: u32) -> Walk {
    var walk: Walk;
    walk.column = lane & ((1u << params.columns_log2) - 1u);
    walk.row = lane >> params.columns_log2;
    walk.channel = params.first_channel + ((workgroup % params.blocks) << params.columns_log2) + walk.column;
    let tile = workgroup / params.blocks;
    walk.tile = params.first_tile + tile;
    if (walk.channel < params.end_channel && tile < params.tiles) {
        let in_segment = tile % params.segment_tiles;
        let is_last = in_segment + 1u == params.segment_tiles;
        let start = in_segment * params.rows * VALUES_PER_ROW + params.start;
        let sample = tile / params.segment_tiles;
        walk.count = select(params.rows * VALUES_PER_ROW, params.last_values, is_last);
        walk.first = x_address(sample + start / params.inner, walk.channel, start % params.inner);
        walk.at = walk.row;
        let own_sample = sample + (start + walk.row) / params.inner;
        walk.inner = (start + walk.row) % params.inner;
        walk.x = x_address(own_sample, walk.channel, walk.inner);
        walk.g = g_address(own_sample, walk.channel, walk.inner);
    }
    return walk;
}

fn x_address(sample: u32, channel: u32, inner: u32) -> u32 {
    return params.x_origin + sample * params.x_sample + channel * params.x_channel + inner * params.x_inner;
}

fn g_address(sample: u32, channel: u32, inner: u32) -> u32 {
    return params.g_origin + sample * params.g_sample + channel * params.g_channel + inner * params.g_inner;
}

// Moves on by `rows` values, to this invocation's next one.
fn step_walk(walk: ptr<function, Walk>) {
    (*walk).at += params.rows;
    (*walk).inner += params.step_inner;
    (*walk).x += params.x_step;
    (*walk).g += params.g_step;
    if ((*walk).inner >= params.inner) {
        (*walk).inner -= params.inner;
        (*walk).x += params.x_wrap;
        (*walk).g += params.g_wrap;
    }
}

fn is_inside(walk: Walk) -> bool {
    return walk.at < walk.count;
}
