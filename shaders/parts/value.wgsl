// v, what enters the activation: formed from x, and from the residual where one is added.

fn value_at(address: u32, line: Line) -> f32 {
    var v = (load_x(address) - line.pivot) * line.scale + line.shift;
    if (ADDS_RESIDUAL) {
        v += load_residual(address);
    }
    return select(v, line.inv_std, is_not_finite(line.inv_std));
}
