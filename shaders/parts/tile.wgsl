// The walk of a lane through one tile of one channel.
//
// A channel has N·L values, numbered i = n·L + l. Value i of channel c of a tensor lies at n·sample
// + c·channel + l·inner, with the tensor's strides: (C·L, L, 1) channels first, (L·C, 1, C)
// channels last. A tile is lanes_per_tile·values_per_lane consecutive values of a channel. Kernels
// of quads walk units of four values that lie next to each other: L counts quads of positions, or C
// quads of channels, and addresses are those of quads.
//
//     walk = begin_walk(invocation, workgroup)     divides, once per invocation
//     while is_inside(walk):
//         use x[walk.x], grad_output[walk.g]
//         step_walk(&walk)                         adds constants that the plan has computed
//
// Quads that cover planes (`covering`) are found from the first value of their plane.
//
// No division per element: a step adds x_step, and x_wrap where the position passes the end of a
// sample. grad_output has strides of its own, so it may be of the other layout.
// A tensor beyond one binding is walked window by window: some tiles of some channels, whose memory
// is bound from a multiple of 256 elements on. x_origin and g_origin shift addresses to what is
// bound, modulo 2³².

#import params
#import choose
#import strides
#import lanes
#import padding
#import tail

// Where one lane stands, and how it goes on.
struct Walk {
    channel: u32,
    tile: u32,            // number of the tile, in the whole tensor
    tile_slot: u32,       // tile within the workgroup
    lane: u32,            // invocation within the tile
    count: u32,           // values of the tile; 0 past the last channel or tile
    valid: u32,           // those of them that count: all, unless samples are padded
    tail: u32,            // values of the quad behind those that count too
    at: u32,              // number of the current value within the tile
    end: u32,             // that after the lane's last value that counts
    stop: u32,            // that after the lane's last value
    inner: u32,           // l of the current value
#if COVERING
    plane: u32,           // address of the first value of its plane, in elements
#endif
    x: u32,               // address of the current value in x
    g: u32,               // address of the current value in grad_output
}

fn begin_walk(invocation: u32, workgroup: u32) -> Walk {
    var walk: Walk;
    let in_run = invocation & ((1u << params.lanes_per_run_log2) - 1u);
    walk.tile_slot = (invocation >> params.lanes_per_run_log2)
        & ((1u << params.tiles_per_workgroup_log2) - 1u);
    walk.lane = ((invocation >> (params.lanes_per_run_log2 + params.tiles_per_workgroup_log2))
        << params.lanes_per_run_log2) | in_run;
    // Divisions cost a software driver more than anything else here, so remainders are made
    // without.
    let tile = workgroup / params.blocks;
    let block = workgroup - tile * params.blocks;
    walk.channel = params.first_channel
        + (block << params.tiles_per_workgroup_log2) + walk.tile_slot;
    walk.tile = params.first_tile + tile;
    let segment = tile / params.segment_tiles;
    let in_segment = tile - segment * params.segment_tiles;
    walk.at = first_of_lane(walk.lane);
    let tile_values = params.lanes_per_tile * params.values_per_lane;
    let start = in_segment * tile_values + params.start + walk.at;
    let samples = start / params.inner;
    walk.inner = start - samples * params.inner;
#if COVERING
    walk.plane = x_address(segment + samples, walk.channel, 0u);
    walk.x = quad_address(walk.plane, walk.inner);
    walk.g = walk.x;
#else
    walk.x = x_address(segment + samples, walk.channel, walk.inner);
    walk.g = g_address(segment + samples, walk.channel, walk.inner);
#endif
    let is_last = in_segment + 1u == params.segment_tiles;
    let has_values = walk.channel < params.end_channel && tile < params.tiles;
    walk.count = choose(0u, choose(tile_values, params.last_values, is_last), has_values);
    walk.valid = walk.count;
    walk.tail = 0u;
    if (params.padded != 0u) {
        let before = params.first_position + in_segment * tile_values;
        let border = border_of(segment, before, walk.count);
        walk.valid = border.units;
        walk.tail = border.tail;
    }
    let lane_end = walk.at - in_run + (params.values_per_lane << params.lanes_per_run_log2);
    walk.end = min(walk.valid, lane_end);
    walk.stop = min(walk.count, lane_end);
    return walk;
}

// The last tiles first, because the sums read them last, and a cache may still hold them. Past the
// last workgroup the number wraps round to a tile without values.
fn begin_walk_from_last(invocation: u32, workgroup: u32) -> Walk {
    return begin_walk(invocation, params.blocks * params.tiles - 1u - workgroup);
}

// Moves on to this lane's next value.
fn step_walk(walk: ptr<function, Walk>) {
    (*walk).at += 1u << params.lanes_per_run_log2;
    let inner = (*walk).inner + params.step_inner;
    let wraps = inner >= params.inner;
    (*walk).inner = choose(inner, inner - params.inner, wraps);
#if COVERING
    (*walk).plane += choose(params.x_step, params.x_step + params.x_wrap, wraps);
    (*walk).x = quad_address((*walk).plane, (*walk).inner);
    (*walk).g = (*walk).x;
#else
    (*walk).x += choose(params.x_step, params.x_step + params.x_wrap, wraps);
    (*walk).g += choose(params.g_step, params.g_step + params.g_wrap, wraps);
#endif
}

fn is_inside(walk: Walk) -> bool {
    return walk.at < walk.end;
}
