// Partial gradient sums of every tile, four values at a time: Σg and Σ g·(x − pivot), each with a flag for NaN or Inf; g
// before the activation.
//
// The host adds what the pivot lacks to the mean: Σ g·(x − mean) = Σ g·(x − pivot) − rest·Σg.
// Dispatch: one workgroup per 256/rows channels and tile. `combine_grad_sums` runs next, unless a channel has one tile.

@group(0) @binding(4) var<storage, read> centering: array<Centering>;       // (C)
@group(0) @binding(5) var<storage, read> weight: array<f32>;                // (C), or anything where has_weight is 0
@group(0) @binding(6) var<storage, read> bias: array<f32>;                  // (C), or anything where has_bias is 0
@group(0) @binding(7) var<storage, read_write> partial: array<vec4<f32>>;   // (tiles, C) of (Σg, Σ g·(x − pivot), flag of g, flag of x)

@compute @workgroup_size(256)
fn main(
    own: Own,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
) {
    let lane = lane_of_own(own);
    var walk = begin_walk(lane, workgroup.x + workgroup.y * workgroups.x);
    var line: Line;
    if (walk.count > 0u) {
        line = line_of(walk.channel);
    }
    begin_sides(walk, lane);
    var sum = vec4<f32>(0.0);
    var products = vec4<f32>(0.0);
    var g_exponents = vec4<u32>(0u);
    var x_exponents = vec4<u32>(0u);
    for (var i = 0u; i < params.row_values; i += 4u) {
        // Four by four, so that few roundings meet in a row.
        var four_sum = vec4<f32>(0.0);
        var four_products = vec4<f32>(0.0);
        for (var j = i; j < i + 4u; j++) {
            if (!is_inside(walk)) {
                break;
            }
            let x = load_x(walk.x);
            let g = upstream(x, walk, j, line);
            four_sum += g;
            four_products += g * (x - line.pivot);
            g_exponents = max(g_exponents, bitcast<vec4<u32>>(g) & EXPONENTS);
            x_exponents = max(x_exponents, bitcast<vec4<u32>>(x) & EXPONENTS);
            step_walk(&walk);
        }
        sum += four_sum;
        products += four_products;
    }
    let flags_of_g = select(vec4<f32>(0.0), vec4<f32>(1.0), g_exponents == EXPONENTS);
    let flags_of_x = select(vec4<f32>(0.0), vec4<f32>(1.0), x_exponents == EXPONENTS);
    merge_over_rows(own_sums(sum, products, flags_of_g, flags_of_x), walk, lane);
}
