// The walk over one tile of one channel, shared by the kernels that sum and those that write whole
// tiles.
//
// The values of a channel are numbered i = n·L + l over its N·L values. Value i of channel c of a
// tensor lies at n·sample + c·channel + l·inner, with the tensor's strides: (C·L, L, 1) channels
// first, (L·C, 1, C) channels last. A tile is `rows`·`row_values` consecutive values, in runs of
// 2^run_log2·`row_values`: as many rows go through a run side by side, so that neighbouring
// invocations read neighbouring addresses, and an invocation stays near to where it was: its
// addresses do not lie a power of two apart, which caches are bad at. A workgroup holds 256/rows
// tiles side by side: the same tile of neighbouring channels, which lie next to each other in
// memory where L is small or channels are last.
//
// Kernels of quads walk units of four values that lie next to each other: then L is in quads of
// positions, or C in quads of channels, and addresses are those of quads.
//
// A tensor beyond one binding is walked window by window: some tiles of some channels, whose memory
// is bound from a multiple of 256 elements on. `x_origin` and `g_origin` shift addresses to what is
// bound, modulo 2³².

#import params
#import choose

// Where one invocation stands, and how it goes on.
struct Walk {
    channel: u32,
    tile: u32,            // number of the tile, in the whole tensor
    column: u32,          // tile within the workgroup
    row: u32,             // invocation within the tile
    count: u32,           // values of the tile; 0 past the last channel or tile
    at: u32,              // number of the current value within the tile
    end: u32,             // that after the row's last value
    inner: u32,           // l of the current value
    x: u32,               // address of the current value in x
    g: u32,               // address of the current value in grad_output
}

// Rows that go through a run, then columns, then runs: the bits of an invocation's number from the
// lowest on.
fn lane_of(row: u32, column: u32) -> u32 {
    let in_run = row & ((1u << params.run_log2) - 1u);
    let run = row >> params.run_log2;
    return (((run << params.columns_log2) | column) << params.run_log2) | in_run;
}

// Values of the tile before the first one of a row.
fn first_of_row(row: u32) -> u32 {
    let in_run = row & ((1u << params.run_log2) - 1u);
    return (row - in_run) * params.row_values + in_run;
}

// Values of a tile of `count` that a row has.
fn values_of_row(row: u32, count: u32) -> u32 {
    let first = first_of_row(row);
    let left = (max(count, first) - first + (1u << params.run_log2) - 1u) >> params.run_log2;
    return min(left, params.row_values);
}

fn begin_walk(lane: u32, workgroup: u32) -> Walk {
    var walk: Walk;
    let in_run = lane & ((1u << params.run_log2) - 1u);
    walk.column = (lane >> params.run_log2) & ((1u << params.columns_log2) - 1u);
    walk.row = ((lane >> (params.run_log2 + params.columns_log2)) << params.run_log2) | in_run;
    // Divisions cost a software driver more than anything else here, so that remainders are made
    // without.
    let tile = workgroup / params.blocks;
    let block = workgroup - tile * params.blocks;
    walk.channel = params.first_channel + (block << params.columns_log2) + walk.column;
    walk.tile = params.first_tile + tile;
    let segment = tile / params.segment_tiles;
    let in_segment = tile - segment * params.segment_tiles;
    walk.at = first_of_row(walk.row);
    let tile_values = params.rows * params.row_values;
    let start = in_segment * tile_values + params.start + walk.at;
    let samples = start / params.inner;
    walk.inner = start - samples * params.inner;
    walk.x = x_address(segment + samples, walk.channel, walk.inner);
    walk.g = g_address(segment + samples, walk.channel, walk.inner);
    let is_last = in_segment + 1u == params.segment_tiles;
    let has_values = walk.channel < params.end_channel && tile < params.tiles;
    walk.count = choose(0u, choose(tile_values, params.last_values, is_last), has_values);
    walk.end = min(walk.count, walk.at - in_run + (params.row_values << params.run_log2));
    return walk;
}

// The last tiles first, because the sums read them last. Past the last workgroup the number wraps
// round to a tile without values.
fn begin_walk_from_last(lane: u32, workgroup: u32) -> Walk {
    return begin_walk(lane, params.blocks * params.tiles - 1u - workgroup);
}

fn x_address(sample: u32, channel: u32, inner: u32) -> u32 {
    return params.x_origin + sample * params.x_sample + channel * params.x_channel + inner * params.x_inner;
}

fn g_address(sample: u32, channel: u32, inner: u32) -> u32 {
    return params.g_origin + sample * params.g_sample + channel * params.g_channel + inner * params.g_inner;
}

// Moves on to this invocation's next value.
fn step_walk(walk: ptr<function, Walk>) {
    (*walk).at += 1u << params.run_log2;
    let inner = (*walk).inner + params.step_inner;
    let wraps = inner >= params.inner;
    (*walk).inner = choose(inner, inner - params.inner, wraps);
    (*walk).x += choose(params.x_step, params.x_step + params.x_wrap, wraps);
    (*walk).g += choose(params.g_step, params.g_step + params.g_wrap, wraps);
}

fn is_inside(walk: Walk) -> bool {
    return walk.at < walk.end;
}
