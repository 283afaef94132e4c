// The number of an invocation in its workgroup, counted subgroup by subgroup, so that neighbours are of one subgroup wherever
// the device has put them. Subgroups are whole: 256 invocations are a multiple of every size.

struct Own {
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_size) size: u32,
    @builtin(subgroup_invocation_id) place: u32,
}

fn lane_of_own(own: Own) -> u32 {
    return own.subgroup * own.size + own.place;
}
