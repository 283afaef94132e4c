// Words of the lanes of a tile merged by way of workgroup memory: added, or the largest of them
// where a range is taken. Neither has an order.
//
//     for each of three vectors of words, or the one of a range:
//         every lane stores its vector;                           barrier
//         blocks of 16 lanes: one invocation merges them;         barrier
//         one invocation per channel merges the blocks and writes `partial`;   barrier
//
// Vector by vector, because all at once would not fit the memory of a workgroup that every device
// has.

#import element
#import params
#import takes
#import choose
#import integer_sums
#import entries

alias Entry = vec4<u32>;

// Vectors of words of a tile and channel.
const VECTORS: u32 = 3u;

fn merged_words(a: vec4<u32>, b: vec4<u32>) -> vec4<u32> {
    return choose_vec4(a + b, max(a, b), vec4<bool>(params.takes == RANGE));
}

#if ONE_CHANNEL_QUADS
fn over_quad(v: vec4<u32>) -> u32 {
    let sum = (v.x + v.y) + (v.z + v.w);
    return choose(sum, max(max(v.x, v.y), max(v.z, v.w)), params.takes == RANGE);
}
#endif

// Four words of an element, each of its values, as those of its channels.
fn words_of(a: U, b: U, c: U, d: U) -> array<Entry, SUMS> {
#if FOUR_CHANNELS
    return array<Entry, SUMS>(
        vec4<u32>(a.x, b.x, c.x, d.x),
        vec4<u32>(a.y, b.y, c.y, d.y),
        vec4<u32>(a.z, b.z, c.z, d.z),
        vec4<u32>(a.w, b.w, c.w, d.w),
    );
#else
#if QUADS
    return array<Entry, SUMS>(
        vec4<u32>(over_quad(a), over_quad(b), over_quad(c), over_quad(d)),
    );
#else
    return array<Entry, SUMS>(vec4<u32>(a, b, c, d));
#endif
#endif
}

// Merges `count` entries from `first` on with a stride of `step`.
fn merged_entries(first: u32, step: u32, count: u32) -> vec4<u32> {
    var merged = vec4<u32>(0u);
    for (var i = 0u; i < count; i++) {
        merged = merged_words(merged, entries[first + i * step]);
    }
    return merged;
}

fn merge_vector(own: array<Entry, SUMS>, walk: Walk, invocation: u32, vector: u32) {
    let channels = SUMS << params.tiles_per_workgroup_log2;
    let blocks = max(params.lanes_per_tile / 16u, 1u);
    let step = blocks * channels;
    hold(own, walk.lane * channels + walk.tile_slot * SUMS);
    workgroupBarrier();
    for (var task = invocation; task < step; task += 256u) {
        // In place of the first merged entry, which no other task reads.
        entries[task] = merged_entries(task, step, params.lanes_per_tile / blocks);
    }
    workgroupBarrier();
    let first_channel = first_channel_of(walk);
    for (var task = invocation; task < channels; task += 256u) {
        let channel = first_channel + task;
        if (is_in_window(walk.tile, channel)) {
            partial[(walk.tile * params.channels + channel) * VECTORS + vector] =
                merged_entries(task, channels, blocks);
        }
    }
    workgroupBarrier();
}

// Merges the sums of the lanes and writes the result.
fn merge_over_lanes(own: LaneSums, walk: Walk, invocation: u32) {
    if (params.takes == RANGE) {
        let ends = words_of(own.ends.low, own.ends.high, U(0u), U(0u));
        merge_vector(ends, walk, invocation, 0u);
    } else {
        let both = words_of(own.s.low, own.s.high, own.t.low, own.t.high);
        merge_vector(both, walk, invocation, 0u);
        let upper = words_of(own.high.low, own.high.high, own.middle.low, own.middle.high);
        merge_vector(upper, walk, invocation, 1u);
        let lower = words_of(own.low.low, own.low.high, U(0u), U(0u));
        merge_vector(lower, walk, invocation, 2u);
    }
}
