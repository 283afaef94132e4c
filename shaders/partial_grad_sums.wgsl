// Partial gradient sums of every tile: Σg and Σ g·(x − pivot), each with a flag for NaN or Inf; g
// before the activation.
//
// x counts in units of its channel; sums of four are multiplied by params.unit. The host adds what
// the pivot lacks to the mean: Σ g·(x − mean) = Σ g·(x − pivot) − rest·Σg. Dispatch: one workgroup
// per 256/lanes_per_tile channels and tile. `combine_grad_sums` runs next, unless a channel has one tile.

#import tile
#import load(x)
#import centering
#import upstream
#import merge_sums
#import transpose

@group(0) @binding(4) var<storage, read> centering: array<Centering>;       // (C)
@group(0) @binding(5) var<storage, read> weight: array<f32>;                // (C), or anything where has_weight is 0
@group(0) @binding(6) var<storage, read> bias: array<f32>;                  // (C), or anything where has_bias is 0
// `merge_over_lanes` writes it.
@group(0) @binding(7) var<storage, read_write> partial: array<vec4<f32>>;   // (tiles, C) of (Σg, Σ g·(x − pivot), flag of g, flag of x)

// A word of the mask holds the values of two lanes: they hold half as many as the lanes of kernels
// that write.
const LANES_PER_WORD: u32 = 2u;

// What an invocation has summed.
struct GradSums {
    dy: V,                // Σg
    dy_deviation: V,      // Σ g·(x − pivot)
}

// The largest exponents that an invocation has seen, as bits.
struct Exponents {
    g: U,
    x: U,
}

// Adds this invocation's next element, the `step`th, if there is one.
fn add_element(
    sums: ptr<function, GradSums>,
    exponents: ptr<function, Exponents>,
    walk: ptr<function, Walk>,
    step: u32,
    affine: Affine,
) {
    if (is_inside(*walk)) {
        let x = load_x((*walk).x);
        let g = upstream(x, (*walk).x, (*walk).g, step, affine);
        (*sums).dy += g;
        (*sums).dy_deviation += g * deviation_of(x, affine);
        (*exponents).g = max((*exponents).g, bitcast<U>(g) & U(EXPONENT));
        (*exponents).x = max((*exponents).x, bitcast<U>(x) & U(EXPONENT));
    }
    step_walk(walk);
}

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
    // Counted subgroup by subgroup, so that neighbours are of one subgroup wherever the device has
    // put them.
    let invocation = subgroup * subgroup_size + subgroup_invocation;
#endif
    var walk = begin_walk(invocation, workgroup.x + workgroup.y * workgroups.x);
    var affine: Affine;
    if (walk.count > 0u) {
        affine = affine_of(walk.channel);
    }
    begin_upstream(walk, invocation);
    var total = GradSums(V(0.0), V(0.0));
    var exponents = Exponents(U(0u), U(0u));
    for (var i = 0u; i < params.values_per_lane; i += 4u) {
        // Four by four: the chain of roundings stays short.
        var sums = GradSums(V(0.0), V(0.0));
        add_element(&sums, &exponents, &walk, i, affine);
        add_element(&sums, &exponents, &walk, i + 1u, affine);
        add_element(&sums, &exponents, &walk, i + 2u, affine);
        add_element(&sums, &exponents, &walk, i + 3u, affine);
        total.dy += sums.dy * params.unit;
        total.dy_deviation += sums.dy_deviation * params.unit;
    }
    let g_flags = select(V(0.0), V(1.0), exponents.g == U(EXPONENT));
    let x_flags = select(V(0.0), V(1.0), exponents.x == U(EXPONENT));
    merge_over_lanes(entries_of(total.dy, total.dy_deviation, g_flags, x_flags), walk, invocation);
}
