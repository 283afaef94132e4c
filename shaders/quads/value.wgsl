// v, what enters the activation: formed from x, and from the residual where one is added.

fn value_of(x: vec4<f32>, quad: u32, line: Line) -> vec4<f32> {
    var v = (x - line.pivot) * line.scale + line.shift;
    if (ADDS_RESIDUAL) {
        v += load_residual(quad);
    }
    // A NaN with whatever bits are set besides.
    return bitcast<vec4<f32>>(bitcast<vec4<u32>>(v) | line.lost);
}
