// The normalized, activated output: y = act((x·unit − pivot)·scale + shift + residual), where
// scale = weight·inv_std and shift = bias − rest·scale.
//
// Dispatch: one workgroup per 256/lanes_per_tile channels and tile; where elements are single
// values, lanes have twice as many as those of the sums. Nothing runs next: y is the result.

#import tile
#import load(x)
#import load(residual)
#import centering
#import affine
#import activation
#import store

@group(0) @binding(3) var<storage, read> centering: array<Centering>;   // (C)
@group(0) @binding(4) var<storage, read> weight: array<f32>;            // (C), or a dummy
@group(0) @binding(5) var<storage, read> bias: array<f32>;              // (C), or a dummy
@group(0) @binding(6) var<storage, read_write> y: array<Stored>;        // (N, C, L), laid out as x
#if KEEPS_MASK
#import mask_by_invocation

// (tiles, blocks of channels, 256), a bit per value
@group(0) @binding(7) var<storage, read_write> mask: array<MaskWord>;
#endif

// Elements that are loaded before the first of them is stored.
#if OUTPUT_F32
const AT_ONCE: u32 = 1u;
#else
const AT_ONCE: u32 = 2u;
#endif

//     affine = pivot, scale, shift of the channel        once per lane
//     for the lane's elements, up to 16 quads or 32 single values:
//         v     = (x·unit − pivot)·scale + shift + residual
//         noted = noted, with a bit of v > 0
//         y     = v where v > 0, slope·v elsewhere
//     for those behind that are padded:  y = 0, and nothing is loaded
//     mask     = noted, one word of the lane's own
//
// Why it is fast: the kernel is memory-bound. It loads x once and stores y once, both coalesced.
// * Of 16 bits, two elements are loaded before the first is stored: one alone is few bytes.
// * A lane stays in one channel: its coefficients are in registers, and nothing is divided per
//   element. Little is live besides, so occupancy is high and hides latency.
// * The last tiles go first: what the sums have read last may still be in a cache.
// * Questions per element (is there a residual, an activation, a mask?) are #if. Questions per lane
//   (is there a weight?) are uniforms, because every #if doubles the pipelines.
// * A lane owns whole words of the mask, and quads of 16 bits are whole words of y: no atomics.
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
    if (walk.at < walk.stop) {
        let affine = affine_of(walk.channel);
        for (var i = 0u; i < params.values_per_lane; i += AT_ONCE) {
            if (!is_inside(walk)) {
                break;
            }
            let at = walk.x;
            let x = load_x(at);
            step_walk(&walk);
            let second_at = walk.x;
            let has_second = AT_ONCE > 1u && is_inside(walk);
            var second_x = x;
            if (has_second) {
                second_x = load_x(second_at);
                step_walk(&walk);
            }
            let v = value_of(x, at, affine);
#if KEEPS_MASK
            note_active(&noted, is_active(v), i);
#endif
            y[at] = stored(activated(v));
            if (has_second) {
                let second_v = value_of(second_x, second_at, affine);
#if KEEPS_MASK
                note_active(&noted, is_active(second_v), i + 1u);
#endif
                y[second_at] = stored(activated(second_v));
            }
        }
#if TAILS
        if (is_at_tail(walk)) {
            let v = value_of(load_x(walk.x), walk.x, affine);
#if KEEPS_MASK
            note_active(&noted, is_active(v), step_of(walk));
#endif
            y[walk.x] = stored(choose_element(U(0u), activated(v), counted_values(walk.tail)));
            step_walk(&walk);
        }
#endif
        for (; walk.at < walk.stop;) {
            y[walk.x] = stored(U(0u));
            step_walk(&walk);
        }
    }
#if KEEPS_MASK
    if (walk.count > 0u) {
        mask[mask_word_of(walk.tile, walk.channel, invocation)] = noted;
    }
#endif
}
