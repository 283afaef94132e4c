// g = grad_output·f'(v), with two slopes grad_output·(v > 0 ? 1 : slope): the gradient before the
// activation, which is also that of the residual.
//
// A mask of forward says where the activation was active, or v is formed again as forward formed
// it.

#import activation
#import affine
#import load(grad_output)

#if MASK
#if MASK_BY_INVOCATION
#import mask_by_invocation

@group(0) @binding(3) var<storage, read> mask: array<MaskWord>;   // as forward wrote it

// The values of this lane.
var<private> own_mask: MaskWord;
#else
#import mask_by_address

@group(0) @binding(3) var<storage, read> mask: array<u32>;        // as forward wrote it

#if FLAT
// The quads of this invocation are four of the eight of one word.
var<private> own_mask: u32;

// Comes before the first quad of an invocation, which is at this address.
fn begin_upstream_at(address: u32) {
    own_mask = mask[mask_word_at(address)];
}
#endif
#endif
#else
#if !FINISHES
#import load(residual)
#endif
#endif

// Comes before the first element of a lane.
fn begin_upstream(walk: Walk, invocation: u32) {
#if MASK_BY_INVOCATION
    if (walk.count == 0u) {
        return;
    }
#if QUADS
    own_mask = mask[mask_word_of(walk.tile, walk.channel, invocation)];
#else
    // A word holds the values of LANES_PER_WORD lanes of this kernel, whose tiles and runs are as
    // much smaller than those of the kernel that wrote the mask.
    let segment = walk.tile / params.mask_segment_tiles;
    let in_segment = walk.tile % params.mask_segment_tiles;
    let tile = segment * params.mask_segment_words + in_segment / LANES_PER_WORD;
    let in_run = walk.lane & ((1u << params.lanes_per_run_log2) - 1u);
    // Runs from the beginning of the tile that the mask knows.
    let run = ((in_segment % LANES_PER_WORD) * params.lanes_per_tile + walk.lane)
        >> params.lanes_per_run_log2;
    let lane = ((run / LANES_PER_WORD) << params.lanes_per_run_log2) | in_run;
    let bits = mask[mask_word_of(tile, walk.channel, invocation_of(lane, walk.tile_slot))];
    own_mask = bits >> ((run % LANES_PER_WORD) * params.values_per_lane);
#endif
#endif
}

#if !CURVED
fn was_active(x: V, r: V, address: u32, step: u32, affine: Affine) -> B {
#if MASK_BY_INVOCATION
    return noted_active(own_mask, step);
#else
#if MASK
#if FLAT
    return active_at(address, own_mask);
#else
    return active_at(address, mask[mask_word_at(address)]);
#endif
#else
    return is_active(value_with(x, r, affine));
#endif
#endif
}
#endif

// Of the element x at an address, the lane's `step`th.
fn upstream(x: V, address: u32, g_address: u32, step: u32, affine: Affine) -> V {
    return upstream_of(load_grad_output(g_address), x, residual_at(address), address, step, affine);
}

// The same of a grad_output and a residual r that are loaded.
fn upstream_of(g: V, x: V, r: V, address: u32, step: u32, affine: Affine) -> V {
#if CURVED
    return differentiated(g, value_with(x, r, affine));
#else
#if ACTIVATION
    return select(scaled_by_slope(g), g, was_active(x, r, address, step, affine));
#else
    return g;
#endif
#endif
}
