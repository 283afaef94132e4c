// The walk over the tiles of a channel, of the kernels that combine them.
//
// A lane is an invocation of a channel. It takes every lanes_per_channel-th tile; a workgroup holds
// 256/lanes_per_channel channels.

#import params
#import choose

// Tiles summed before they join the lane's sum, so that its rounding grows with tiles/16 and not
// with tiles.
const BATCH: u32 = 16u;

struct Place {
    channel: u32,
    channel_slot: u32,    // channel within the workgroup
    lane: u32,            // invocation within the channel
    tiles: u32,           // tiles to combine; 0 past the last channel
}

fn locate(invocation: u32, workgroup: u32) -> Place {
    var place: Place;
    place.channel_slot = invocation & ((1u << params.channels_per_workgroup_log2) - 1u);
    place.lane = invocation >> params.channels_per_workgroup_log2;
    place.channel = (workgroup << params.channels_per_workgroup_log2) + place.channel_slot;
    place.tiles = choose(0u, params.tiles, place.channel < params.channels);
    return place;
}

// The tile after the batch that starts with `start`.
fn end_of_batch(start: u32, tiles: u32) -> u32 {
    return min(tiles, start + BATCH * params.lanes_per_channel);
}
