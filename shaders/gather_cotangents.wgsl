// The cotangents of a rank's grad_weight and grad_bias, moved to where those of all ranks lie; 0
// for one that is not given.
//
// Dispatch: one workgroup per 256 channels, an invocation per channel, for every rank.
// `finalize_double` reads them.

#import params
#import channel

@group(0) @binding(1) var<storage, read> weight_cotangent: array<f32>;   // (C), or a dummy
@group(0) @binding(2) var<storage, read> bias_cotangent: array<f32>;     // (C), or a dummy
// (C) of (weight, bias), of this rank
@group(0) @binding(3) var<storage, read_write> cotangents: array<vec2<f32>>;

// It reads two values per channel, so its time is that of a dispatch.
@compute @workgroup_size(256)
fn main(
    @builtin(local_invocation_index) invocation: u32,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
) {
    let channel = channel_of(invocation, workgroup, workgroups);
    if (channel >= params.channels) {
        return;
    }
    var gathered = vec2<f32>(0.0);
    if (params.has_weight != 0u) {
        gathered.x = weight_cotangent[channel];
    }
    if (params.has_bias != 0u) {
        gathered.y = bias_cotangent[channel];
    }
    cotangents[channel] = gathered;
}
