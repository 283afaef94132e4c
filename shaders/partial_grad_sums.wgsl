// Partial gradient sums of every tile: Σg and Σ g·(x − pivot), each with a flag for NaN or Inf; g
// is the gradient before the activation.
//
// x counts in units of its channel; sums of four are multiplied by params.unit. The pivot is
// forward's, so what it lacks to the mean is added to the sums, not to every value:
// Σ g·(x − mean) = Σ g·(x − pivot) − rest·Σg.
//
// Dispatch: one workgroup per 256/lanes_per_tile channels and tile. `combine_grad_sums` runs next,
// or `finalize_grad` if a channel has one tile or the device one rank; if both, this kernel may do
// the work of that, and write grad_input as well.

#import tile
#import load(x)
#import centering
#import upstream
#import merge_sums
#import transpose
#import grad_sums

@group(0) @binding(4) var<storage, read> centering: array<Centering>;   // (C)
#if FINISHES
#import finish_grad
#else
@group(0) @binding(5) var<storage, read> weight: array<f32>;            // (C), or a dummy
@group(0) @binding(6) var<storage, read> bias: array<f32>;              // (C), or a dummy
// (tiles, C) of (Σg, Σ g·(x − pivot), flag of g, flag of x); written by `merge_over_lanes`
@group(0) @binding(7) var<storage, read_write> partial: array<vec4<f32>>;
#endif

// A word of a mask by invocation holds the values of two lanes: they have half as many as the lanes
// of kernels that write.
const LANES_PER_WORD: u32 = 2u;

//     for the lane's elements, up to 16, four by four:
//         g       = grad_output, times the slope where the activation was not active
//         s      += g;  t += g·(x − pivot)
//         S += s·unit;  T += t·unit                      of each four; the rest of a tile is 0
//     flags    = a g is not finite, an x is not; none where T is finite
//     sums     = (S, T, flags) added up over the lanes of the tile
//     partial  = sums, or what `finalize_grad` makes of them
//
// Why it is fast: the kernel is memory-bound. It loads grad_output and x once, coalesced. Where the
// activation was active is in a word of a mask, or formed again from x (and the residual).
// * The pivot is known, so one pass is enough: a lane keeps a few sums and no register tile, and
//   occupancy is high.
// * No division, no barrier and no branch on data in the loop. The loads of four quads are in
//   flight at once.
// * Sums of four, then of those: a value passes few roundings, in an order that no device changes.
@compute @workgroup_size(256)
fn main(
#if SUBGROUPS
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_size) subgroup_size: u32,
    @builtin(subgroup_invocation_id) subgroup_invocation: u32,
#else
    @builtin(local_invocation_index) invocation: u32,
#endif
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
) {
#if SUBGROUPS
    // Counted subgroup by subgroup: neighbours are of one subgroup wherever the device puts them.
    let invocation = subgroup * subgroup_size + subgroup_invocation;
#endif
    let start = begin_walk(invocation, workgroup.x + workgroup.y * workgroups.x);
    var walk = start;
    var affine: Affine;
    if (walk.count > 0u) {
        affine = affine_of(walk.channel);
    }
    begin_upstream(walk, invocation);
    let none = GradSums(V(0.0), V(0.0));
    var total = none;
    if (is_inside(walk)) {
        var i = 0u;
        loop {
            let stand_in = current_addresses(walk);
            var sums = none;
            add_element(&sums, &walk, stand_in, i, affine);
            add_element(&sums, &walk, stand_in, i + 1u, affine);
            add_element(&sums, &walk, stand_in, i + 2u, affine);
            add_element(&sums, &walk, stand_in, i + 3u, affine);
            total.dy += sums.dy * params.unit;
            total.dy_deviation += sums.dy_deviation * params.unit;
            continuing {
                i += 4u;
                // Asked at the end: a driver without jumps would go through the body once more.
                // What is left is padded, or behind the end of the tile.
                break if i >= params.values_per_lane || !is_inside(walk);
            }
        }
    }
#if TAILS
    if (owns_tail(walk)) {
        add_tail(&total, walk, affine);
    }
#endif
    // A g or an x that is not finite makes the sum of products so: even 0 times infinity is NaN.
    // Which it was is a question for few.
    let dy_deviation = settled(total.dy_deviation);
    var not_finite = NotFinite(B(false), B(false));
    if (any(is_not_finite_element(dy_deviation))) {
        not_finite = not_finite_of_lane(start, affine);
    }
    let g_flags = select(V(0.0), V(1.0), not_finite.g);
    let x_flags = select(V(0.0), V(1.0), not_finite.x);
    merge_over_lanes(entries_of(total.dy, dy_deviation, g_flags, x_flags), walk, invocation);
#if FUSED
    write_grad_input(start, affine);
#endif
}
