// g = grad_output·(v > 0 ? 1 : slope): the gradient before the activation, which is also that of the residual.

fn upstream(x_at: u32, g_at: u32, step: u32, line: Line) -> f32 {
    let g = load_grad_output(g_at);
    if (!ACTIVATES) {
        return g;
    }
    return select(below(g), g, is_above(x_at, step, line));
}
