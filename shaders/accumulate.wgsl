// Adds a vector to another, one f32 addition per value: a gradient that the host has computed, to
// the old gradient.
//
// Dispatch: one workgroup per 256 values, an invocation per value. Nothing runs next.

#import params
#import channel
#import accumulated

@group(0) @binding(1) var<storage, read> addend: array<u32>;        // (C), bits of f32
@group(0) @binding(2) var<storage, read_write> total: array<u32>;   // (C), bits of f32

// It reads two values per channel, so its time is that of a dispatch.
@compute @workgroup_size(256)
fn main(
    @builtin(local_invocation_index) invocation: u32,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
) {
    let channel = channel_of(invocation, workgroup, workgroups);
    if (channel < params.channels) {
        total[channel] = accumulated(total[channel], addend[channel]);
    }
}
