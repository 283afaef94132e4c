// v = (x − pivot)·scale + shift, plus the residual: what enters the activation. scale = weight·inv_std,
// shift = bias − rest·scale, mean = pivot + rest.
//
// x − pivot is exact where x is near the mean, so that nothing of v is lost to a large mean. Forward and backward form v by
// this one text, so that backward finds the side of the activation on which forward was.

struct Line {
    pivot: f32,
    scale: f32,
    shift: f32,
    inv_std: f32,         // NaN where the channel is not finite
}

fn line_of(center: Centering, channel: u32) -> Line {
    var line = Line(center.pivot, center.inv_std, 0.0, center.inv_std);
    if (params.has_weight != 0u) {
        line.scale *= weight[channel];
    }
    line.shift = -center.rest * line.scale;
    if (params.has_bias != 0u) {
        line.shift += bias[channel];
    }
    return line;
}
