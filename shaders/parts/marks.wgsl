// The marks by which a workgroup sees that no channel of its own has a grid.

#import params
#import integers

// Channels of an element, or elements of one channel, that share a mark at least.
#if FOUR_CHANNELS
const CHANNELS_MARKED: u32 = 64u;
#else
const CHANNELS_MARKED: u32 = 256u;
#endif

// The mark of a channel of an element.
fn mark_of(channel: u32) -> u32 {
#if FOUR_CHANNELS
    return grids[4u * channel * GRIDS].mark;
#else
    return grids[channel * GRIDS].mark;
#endif
}

// Whether a channel from `first` on, as far as the workgroup reaches, is marked.
fn marks_of(first: u32) -> u32 {
    let end = min(first + (1u << params.tiles_per_workgroup_log2), params.end_channel);
    var marks = 0u;
    for (var channel = first; channel < end; channel += CHANNELS_MARKED) {
        marks |= mark_of(channel);
    }
    if (first < end) {
        marks |= mark_of(end - 1u);
    }
    return marks;
}
