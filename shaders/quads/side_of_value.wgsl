// On which side of the activation values were: v is formed again, as forward formed it.

fn begin_sides(walk: Walk, lane: u32) {}

fn are_above(x: vec4<f32>, quad: u32, step: u32, line: Line) -> vec4<bool> {
    return value_of(x, quad, line) > vec4<f32>(0.0);
}
