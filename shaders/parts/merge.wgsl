// Merging over the lanes of a tile, by way of workgroup memory.
//
//     level 1: four lanes each          shuffles in a subgroup, or a store and a barrier
//     level 2: four of those each       barrier
//     level 3: four of those each       one invocation per channel, which
//     level 4: the rest, four at most   writes or finishes it (parts/merge_tile.wgsl)
//
// Two barriers and no loop. The order is fixed, whoever merges the first fours
// (parts/merge_fours.wgsl): f32 addition is not associative, and the bits are to be the same with
// subgroups of any size and without.

#import entries
#import merge_fours
#import merge_tile

alias Entry = vec4<f32>;

fn sum_of_four(v: vec4<f32>) -> f32 {
    return (v.x + v.y) + (v.z + v.w);
}

// An entry, or one of no value.
fn entry_if(is_there: bool, at: u32) -> vec4<f32> {
    var entry = vec4<f32>(0.0);
    if (is_there) {
        entry = entries[at];
    }
    return entry;
}

fn four_if(is_there: bool, at: u32, stride: u32) -> vec4<f32> {
    var entry = vec4<f32>(0.0);
    if (is_there) {
        entry = four(at, stride);
    }
    return entry;
}

// Merges four entries from `first` on with a stride of `step`, or those below `count`.
fn merged_entries(first: u32, step: u32, count: u32) -> vec4<f32> {
    return merged_four(
        entries[first],
        entry_if(count > 1u, first + step),
        entry_if(count > 2u, first + 2u * step),
        entry_if(count > 2u, first + 3u * step),
    );
}

// Merges `count` entries, a power of two up to 16. The merges of four do not depend on each other,
// so a device runs them side by side: in a loop over 16 entries each would wait for the one before.
fn merged(first: u32, step: u32, count: u32) -> vec4<f32> {
    let four = merged_entries(first, step, count);
    if (count <= 4u) {
        return four;
    }
    var third = vec4<f32>(0.0);
    var fourth = vec4<f32>(0.0);
    if (count > 8u) {
        third = merged_entries(first + 8u * step, step, 4u);
        fourth = merged_entries(first + 12u * step, step, 4u);
    }
    return merged_four(four, merged_entries(first + 4u * step, step, 4u), third, fourth);
}
