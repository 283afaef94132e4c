// g = grad_output·(v > 0 ? 1 : slope): the gradient before the activation, which is also that of the residual.

fn upstream(x: vec4<f32>, walk: Walk, step: u32, line: Line) -> vec4<f32> {
    let g = load_grad_output(walk.g);
    if (!ACTIVATES) {
        return g;
    }
    return select(below(g), g, are_above(x, walk.x, step, line));
}
