// Partial gradient sums of every tile: Σg and Σ g·(x − pivot), each with a flag for NaN or Inf; g before the activation.
//
// The host adds what the pivot lacks to the mean: Σ g·(x − mean) = Σ g·(x − pivot) − rest·Σg.
// Dispatch: one workgroup per 256/rows channels and tile. `combine_grad_sums` runs next, unless a channel has one tile.

@group(0) @binding(4) var<storage, read> centering: array<Centering>;       // (C)
@group(0) @binding(5) var<storage, read> weight: array<f32>;                // (C), or anything where has_weight is 0
@group(0) @binding(6) var<storage, read> bias: array<f32>;                  // (C), or anything where has_bias is 0
@group(0) @binding(7) var<storage, read_write> partial: array<vec4<f32>>;   // (tiles, C) of (Σg, Σ g·(x − pivot), flag of g, flag of x)

// What this invocation's next value adds.
fn next_terms(walk: ptr<function, Walk>, step: u32, line: Line) -> vec4<f32> {
    var terms = vec4<f32>(0.0);
    if (is_inside(*walk)) {
        let g = upstream((*walk).x, (*walk).g, step, line);
        let value = load_x((*walk).x);
        terms = vec4<f32>(g, g * (value - line.pivot), flag_of(g), flag_of(value));
    }
    step_walk(walk);
    return terms;
}

fn next_four(walk: ptr<function, Walk>, step: u32, line: Line) -> vec4<f32> {
    let a = next_terms(walk, step, line);
    let b = next_terms(walk, step + 1u, line);
    let c = next_terms(walk, step + 2u, line);
    let d = next_terms(walk, step + 3u, line);
    return (a + b) + (c + d);
}

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
        line = line_of(centering[walk.channel], walk.channel);
    }
    begin_sides(walk, lane);
    let a = next_four(&walk, 0u, line);
    let b = next_four(&walk, 4u, line);
    let c = next_four(&walk, 8u, line);
    let d = next_four(&walk, 12u, line);
    merge_over_rows(array<vec4<f32>, SUMS>((a + b) + (c + d)), walk, lane);
}
