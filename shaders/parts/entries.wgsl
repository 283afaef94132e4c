// Workgroup memory in which the lanes of tiles merge. An entry is what a lane holds of a channel.
//
// The entries of all channels of a workgroup lie side by side, SUMS of them from each lane. Lanes
// are a power of two up to 256.

#import tile

#if FOUR_CHANNELS
const SUMS: u32 = 4u;
#else
const SUMS: u32 = 1u;
#endif

const ENTRIES: u32 = 256u * SUMS;

var<workgroup> entries: array<Entry, ENTRIES>;

fn hold(own: array<Entry, SUMS>, at: u32) {
    entries[at] = own[0];
#if FOUR_CHANNELS
    entries[at + 1u] = own[1];
    entries[at + 2u] = own[2];
    entries[at + 3u] = own[3];
#endif
}

// The first channel of a workgroup; the others follow it.
fn first_channel_of(walk: Walk) -> u32 {
    return (walk.channel - walk.tile_slot) * SUMS;
}

// Whether the window has a tile and a channel; the last workgroups reach beyond it.
fn is_in_window(tile: u32, channel: u32) -> bool {
    return tile - params.first_tile < params.tiles && channel < params.end_channel * SUMS;
}
