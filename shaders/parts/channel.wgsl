// The entry of kernels that have one invocation per channel, in workgroups over x and y.

// The channel of an invocation; params.channels or more for the surplus of the last workgroup.
fn channel_of(invocation: u32, workgroup: vec3<u32>, workgroups: vec3<u32>) -> u32 {
    return (workgroup.x + workgroup.y * workgroups.x) * 256u + invocation;
}
