// The quad at the border of a padded sample, of which one to three values count: whose it is, and
// where it lies. A lane takes it behind the loop over its other values.

#if TAILS
// The number of the current value among the lane's.
fn step_of(walk: Walk) -> u32 {
    return (walk.at - first_of_lane(walk.lane)) >> params.lanes_per_run_log2;
}

// Whether a lane that has come to the end of what counts stands at the quad at the border.
fn is_at_tail(walk: Walk) -> bool {
    return walk.tail > 0u && walk.at == walk.valid && walk.at < walk.stop;
}

// Whether the quad at the border is among those of the lane.
fn owns_tail(walk: Walk) -> bool {
    let first = first_of_lane(walk.lane);
    let is_in_step = ((walk.valid ^ first) & ((1u << params.lanes_per_run_log2) - 1u)) == 0u;
    return walk.tail > 0u && is_in_step && first <= walk.valid && walk.valid < walk.stop;
}

// The walk of its lane at the quad at the border.
fn tail_of(walk: Walk) -> Walk {
    var tail = walk;
    let tile = walk.tile - params.first_tile;
    let segment = tile / params.segment_tiles;
    let in_segment = tile - segment * params.segment_tiles;
    let inner = in_segment * params.lanes_per_tile * params.values_per_lane + walk.valid;
    tail.at = walk.valid;
    tail.x = x_address(segment, walk.channel, inner);
    tail.g = g_address(segment, walk.channel, inner);
    return tail;
}
#endif
