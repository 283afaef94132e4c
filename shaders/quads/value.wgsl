// v, what enters the activation: formed from x, and from the residual where one is added.

fn value_of(x: vec4<f32>, quad: u32, line: Line) -> vec4<f32> {
    var v = (x - line.pivot) * line.scale + line.shift;
    if (params.has_residual != 0u) {
        v += load_residual(quad);
    }
    return select(v, line.inv_std, are_not_finite(line.inv_std));
}
