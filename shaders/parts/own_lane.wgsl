// The number of an invocation in its workgroup.

struct Own {
    @builtin(local_invocation_index) lane: u32,
}

fn lane_of_own(own: Own) -> u32 {
    return own.lane;
}
