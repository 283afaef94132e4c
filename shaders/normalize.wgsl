// The normalized, activated output.
//
// Dispatch: one workgroup per 256/lanes_per_tile channels and tile, whose lanes are twice as long as those of
// the sums where elements are single values. The result is the output.

#import tile
#import load(x)
#import load(residual)
#import centering
#import affine
#import activation
#import store

@group(0) @binding(3) var<storage, read> centering: array<Centering>;   // (C)
@group(0) @binding(4) var<storage, read> weight: array<f32>;            // (C), or anything where has_weight is 0
@group(0) @binding(5) var<storage, read> bias: array<f32>;              // (C), or anything where has_bias is 0
@group(0) @binding(6) var<storage, read_write> y: array<Stored>;        // (N, C, L) in the layout of x
#if KEEPS_MASK
#import mask_bits

@group(0) @binding(7) var<storage, read_write> mask: array<MaskWord>;   // (tiles, blocks of channels, 256)
#endif

@compute @workgroup_size(256)
fn main(
    @builtin(local_invocation_index) invocation: u32,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
) {
    var walk = begin_walk_from_last(invocation, workgroup.x + workgroup.y * workgroups.x);
#if KEEPS_MASK
    var noted: MaskWord;
#endif
    if (is_inside(walk)) {
        let affine = affine_of(walk.channel);
        for (var i = 0u; i < params.values_per_lane; i++) {
            if (!is_inside(walk)) {
                break;
            }
            let v = value_of(load_x(walk.x), walk.x, affine);
#if KEEPS_MASK
            note_active(&noted, is_active(v), i);
#endif
            y[walk.x] = stored(activated(v));
            step_walk(&walk);
        }
    }
#if KEEPS_MASK
    if (walk.count > 0u) {
        mask[mask_word_of(walk.tile, walk.channel, invocation)] = noted;
    }
#endif
}
