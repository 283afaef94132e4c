// How the 256 invocations of a workgroup are tiles of neighbouring channels, and a tile is lanes.
//
// A lane is an invocation of a tile. Lanes read a tile in runs: 2^lanes_per_run_log2 neighbouring
// lanes interleave their loads. Value k of lane j of run r is value
//
//     (r·values_per_lane + k)·2^lanes_per_run_log2 + j
//
// of the tile. So each step of a run reads one stretch of memory, and its loads coalesce. A lane's
// next value lies next to its neighbours': with a stride of lanes_per_tile values instead, a lane's
// successive loads would lie 4 KB from each other, map to the same cache set and evict each other.

#import params

// The bits of an invocation's index, from the lowest on: lane within its run, tile slot, run.
fn invocation_of(lane: u32, tile_slot: u32) -> u32 {
    let in_run = lane & ((1u << params.lanes_per_run_log2) - 1u);
    let run = lane >> params.lanes_per_run_log2;
    return (((run << params.tiles_per_workgroup_log2) | tile_slot) << params.lanes_per_run_log2)
        | in_run;
}

// Values of the tile before the first one of a lane.
fn first_of_lane(lane: u32) -> u32 {
    let in_run = lane & ((1u << params.lanes_per_run_log2) - 1u);
    return (lane - in_run) * params.values_per_lane + in_run;
}

// Values that a lane has of a tile of `count`.
fn values_of_lane(lane: u32, count: u32) -> u32 {
    let first = first_of_lane(lane);
    let left = (max(count, first) - first + (1u << params.lanes_per_run_log2) - 1u)
        >> params.lanes_per_run_log2;
    return min(left, params.values_per_lane);
}
