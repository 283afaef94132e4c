// The largest magnitude of the gradients of every tile, or exact sums of their integers w, of the
// integers q of x and of q·w: gradient sums that have no order; g is the gradient before the
// activation.
//
// The largest |g| of a channel over all ranks comes first, and gives the grid of its gradients. The
// grid of x is forward's.
//
// Dispatch: one workgroup per 256/lanes_per_tile channels and tile. `combine_integers` runs next.

#import tile
#import load(x)
#import centering
#import upstream
#import takes
#import integer_sums
#import merge_words

@group(0) @binding(4) var<storage, read> centering: array<Centering>;   // (C)
@group(0) @binding(5) var<storage, read> weight: array<f32>;            // (C), or a dummy
@group(0) @binding(6) var<storage, read> bias: array<f32>;              // (C), or a dummy
@group(0) @binding(7) var<storage, read> grids: array<GridParams>;      // (C, 2): of x and of g
// (tiles, C, 3) of the words of `LaneSums`, or of the largest magnitude in the first; written by
// `merge_over_lanes`
@group(0) @binding(8) var<storage, read_write> partial: array<vec4<u32>>;

const GRIDS: u32 = 2u;

// As in `partial_grad_sums`.
const LANES_PER_WORD: u32 = 2u;

// Adds the element at the place of a walk, the lane's `step`th, of which only the values of
// `counted` bits count.
fn add_value(
    sums: ptr<function, LaneSums>,
    four: ptr<function, Four>,
    at: Walk,
    step: u32,
    counted: U,
    affine: Affine,
    both: array<Grid, 2>,
) {
#if ACTIVATION
    let x = load_x(at.x);
#else
    var x = V(0.0);
    if (params.takes != RANGE) {
        x = load_x(at.x);
    }
#endif
    let g = upstream(x, at.x, at.g, step, affine);
    if (params.takes == RANGE) {
        let magnitude = bitcast<U>(g) & U(0x7fffffffu);
        (*sums).ends.high = max((*sums).ends.high, magnitude & counted);
    } else {
        let q = integer_of(place_of(x, both[0])) & counted;
        let w = integer_of(place_of(g, both[1])) & counted;
        add_product(four, q, w);
    }
}

// Adds this lane's next element, the `step`th, if there is one.
fn add_element(
    sums: ptr<function, LaneSums>,
    four: ptr<function, Four>,
    walk: ptr<function, Walk>,
    step: u32,
    affine: Affine,
    both: array<Grid, 2>,
) {
    if (is_inside(*walk)) {
        add_value(sums, four, *walk, step, U(0xffffffffu), affine, both);
    }
    step_walk(walk);
}

//     for the lane's elements, up to 16, four by four:
//         g       = grad_output, times the slope where the activation was not active
//         words of the four += digits of q, w and q·w           below 2³²
//         words of the lane += their halves of 16 bits
//     partial  = the sum of the words over the lanes of the tile
//
// As fast as `partial_integers` and `partial_grad_sums`, for the same reasons. The range of
// gradients that no activation changes does not read x.
@compute @workgroup_size(256)
fn main(
    @builtin(local_invocation_index) invocation: u32,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
) {
    var walk = begin_walk(invocation, workgroup.x + workgroup.y * workgroups.x);
    var affine: Affine;
    var both: array<Grid, 2>;
    if (walk.count > 0u) {
        affine = affine_of(walk.channel);
        if (params.takes != RANGE) {
            both = array<Grid, 2>(grid_of(walk.channel, 0u), grid_of(walk.channel, 1u));
        }
    }
    begin_upstream(walk, invocation);
    var sums: LaneSums;
    for (var i = 0u; i < params.values_per_lane; i += 4u) {
        var four = no_four();
        add_element(&sums, &four, &walk, i, affine, both);
        add_element(&sums, &four, &walk, i + 1u, affine, both);
        add_element(&sums, &four, &walk, i + 2u, affine, both);
        add_element(&sums, &four, &walk, i + 3u, affine, both);
        add_four(&sums, four);
    }
#if TAILS
    if (owns_tail(walk)) {
        var four = no_four();
        let counted = choose_element(U(0u), U(0xffffffffu), counted_values(walk.tail));
        walk = tail_of(walk);
        add_value(&sums, &four, walk, step_of(walk), counted, affine, both);
        add_four(&sums, four);
    }
#endif
    merge_over_lanes(sums, walk, invocation);
}
