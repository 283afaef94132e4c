// Partial sums of double backward of every tile: Σv, Σ v·(x − pivot) and Σ v·p, and a flag for NaN
// or Inf of v; v is the cotangent of grad_input, and
// p = g − mean_dy − (x − mean)·projection with g the gradient before the activation.
//
// x counts in units of its channel; v is multiplied by params.unit. The pivot is forward's, so what
// it lacks to the mean is added to the second sum, not to every value. The host knows by what
// mean_dy and projection were rounded.
//
// Dispatch: as `partial_grad_sums`. `combine_grad_sums` runs next, unless a channel has one tile:
// then the ranks add up their sums.

#import tile
#import load(x)
#import gradient
#import load(cotangent)
#import merge_sums
#import transpose

// (tiles, C) of (Σv, Σ v·(x − pivot), Σ v·p, flag of v); written by `merge_over_lanes`
@group(0) @binding(8) var<storage, read_write> partial: array<vec4<f32>>;

// As in `partial_grad_sums`.
const LANES_PER_WORD: u32 = 2u;

// The sums of a lane.
struct DoubleSums {
    v: V,                 // Σv
    v_deviation: V,       // Σ v·(x − pivot)
    v_p: V,               // Σ v·p
}

// Adds this lane's next element, the `step`th, if there is one.
fn add_element(
    sums: ptr<function, DoubleSums>,
    exponents: ptr<function, U>,
    walk: ptr<function, Walk>,
    step: u32,
    of_channel: GradCoefficients,
) {
    if (is_inside(*walk)) {
        let x = load_x((*walk).x);
        let g = upstream(x, (*walk).x, (*walk).g, step, of_channel.affine);
        let loaded = load_cotangent((*walk).x);
        // Settled: without the unit its products may vanish.
        let v = settled(loaded * params.unit);
        let deviation = deviation_of(x, of_channel.affine);
        let from_mean = difference(deviation, of_channel.affine.rest);
        let from_statistics = settled(of_channel.mean_dy + from_mean * of_channel.projection);
        (*sums).v += v;
        (*sums).v_deviation += v * deviation;
        (*sums).v_p += v * difference(g, from_statistics);
        *exponents = max(*exponents, bitcast<U>(loaded) & U(EXPONENT));
    }
    step_walk(walk);
}

//     for the lane's elements, up to 16, four by four:
//         g       = grad_output, times the slope where the activation was not active
//         s      += v;  t += v·(x − pivot);  r += v·(g − mean_dy − (x − mean)·projection)
//         S += s;  T += t;  R += r                       of each four
//     partial  = the sum of (S, T, R, flag) over the lanes of the tile
//
// As `partial_grad_sums`, with a third tensor to load: memory-bound, one pass, no division and no
// branch on data in the loop. Few call it, so its loads stay under the branch that ends a tile.
@compute @workgroup_size(256)
fn main(
    @builtin(local_invocation_index) invocation: u32,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
) {
    var walk = begin_walk(invocation, workgroup.x + workgroup.y * workgroups.x);
    var of_channel: GradCoefficients;
    if (walk.count > 0u) {
        of_channel = grad_coefficients_of(walk.channel);
    }
    begin_upstream(walk, invocation);
    var total = DoubleSums(V(0.0), V(0.0), V(0.0));
    var exponents = U(0u);
    for (var i = 0u; i < params.values_per_lane; i += 4u) {
        var sums = DoubleSums(V(0.0), V(0.0), V(0.0));
        add_element(&sums, &exponents, &walk, i, of_channel);
        add_element(&sums, &exponents, &walk, i + 1u, of_channel);
        add_element(&sums, &exponents, &walk, i + 2u, of_channel);
        add_element(&sums, &exponents, &walk, i + 3u, of_channel);
        total.v += sums.v;
        total.v_deviation += sums.v_deviation;
        total.v_p += sums.v_p;
    }
    let flags = select(V(0.0), V(1.0), exponents == U(EXPONENT));
    merge_over_lanes(
        entries_of(total.v, total.v_deviation, total.v_p, flags),
        walk,
        invocation,
    );
}
