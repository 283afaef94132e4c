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

struct TileParams {
    channels: u32,        // C
    inner: u32,           // L, or more where the window lies within one row
    tiles: u32,           // tiles of the window
    segment_tiles: u32,   // tiles after which a segment ends: all values of a channel, or those of one sample
    last_values: u32,     // values of a segment's last tile
    start: u32,           // l of the window's first value
    first_tile: u32,      // number of the window's first tile
    first_channel: u32,   // the window's first channel
    end_channel: u32,     // the channel after its last
    rows: u32,            // invocations per tile, a power of two
    columns_log2: u32,    // log2 of the tiles side by side in a workgroup
    blocks: u32,          // workgroups that cover the window's channels once
    step_inner: u32,      // rows mod L: what one step adds to l
    x_origin: u32,        // what is added to every address
    x_sample: u32,        // strides of x and of what is written, in elements
    x_channel: u32,
    x_inner: u32,
    x_step: u32,          // what one step adds to their address
    x_wrap: u32,          // what is added when l passes L: to the next sample
    g_origin: u32,        // the same of grad_output, which may have another layout
    g_sample: u32,
    g_channel: u32,
    g_inner: u32,
    g_step: u32,
    g_wrap: u32,
    four_channels: u32,   // kernels of quads: 1 where a quad is of four channels, 0 where it is of one
    g_apart: u32,         // elements of grad_output from one value of a quad to the next, if its layout is another
    first_element: u32,   // kernels that own words: the first address that is written
    end_element: u32,     // the address after the last
    run: u32,             // elements from one channel to the next in memory
    run_channel: u32,     // channel of the element at address 0
    run_end: u32,         // address where the next channel begins
    g_follows_x: u32,     // 1 where grad_output has the addresses of x
    mask_origin: u32,     // word of the mask that holds the element at address 0, where its bits lie by address
    mask_by_address: u32,        // 1 there, 0 where a word holds the values of one invocation
    mask_segment_tiles: u32,     // tiles of this kernel per segment
    mask_segment_words: u32,     // words per invocation and segment
    mask_blocks: u32,            // workgroups that cover all channels once
    has_weight: u32,      // 1 where a weight is bound, else it counts as 1
    has_bias: u32,        // 1 where a bias is bound, else it counts as 0
    has_residual: u32,    // 1 where a residual is added before the activation
    activates: u32,       // 1 where there is an activation
    slope: f32,           // what it multiplies values of 0 and below by
    has_batch_statistics: u32,   // 1 where the statistics depend on x, 0 where they are constants for the gradient
}

@group(0) @binding(0) var<uniform> params: TileParams;

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
