// The parameters of the kernels that walk tiles, or own words of what they write.

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
    row_values: u32,      // values of a tile that an invocation goes through
    run_log2: u32,        // log2 of the invocations of a tile that go side by side through a run of it
    columns_log2: u32,    // log2 of the tiles side by side in a workgroup
    blocks: u32,          // workgroups that cover the window's channels once
    step_inner: u32,      // 2^run_log2 mod L: what one step adds to l
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
    g_apart: u32,         // elements of grad_output from one value of a quad to the next, if its layout is another
    first_element: u32,   // kernels that own words: the first address that is written
    end_element: u32,     // the address after the last
    run: u32,             // elements from one channel to the next in memory
    run_channel: u32,     // channel of the element at address 0
    run_end: u32,         // address where the next channel begins
    g_follows_x: u32,     // 1 where grad_output has the addresses of x
    mask_origin: u32,     // word of the mask that holds the element at address 0, where its bits lie by address
    mask_segment_tiles: u32,     // tiles of this kernel per segment
    mask_segment_words: u32,     // words per invocation and segment
    mask_blocks: u32,            // workgroups that cover all channels once
    has_weight: u32,      // 1 where a weight is bound, else it counts as 1
    has_bias: u32,        // 1 where a bias is bound, else it counts as 0
    slope: f32,           // what an activation multiplies values of 0 and below by
}

@group(0) @binding(0) var<uniform> params: TileParams;
