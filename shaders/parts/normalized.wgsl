// y = (x − pivot)·scale + shift with scale = weight·inv_std, shift = bias − rest·scale, mean = pivot + rest.
//
// x − pivot is exact where x is near the mean, so that nothing of y is lost to a large mean.

@group(0) @binding(2) var<storage, read> centering: array<Centering>;    // (C)
@group(0) @binding(3) var<storage, read> weight: array<f32>;             // (C), or anything where has_weight is 0
@group(0) @binding(4) var<storage, read> bias: array<f32>;               // (C), or anything where has_bias is 0

struct Line {
    pivot: f32,
    scale: f32,
    shift: f32,
    inv_std: f32,
}

fn line_of(channel: u32) -> Line {
    let center = centering[channel];
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

fn normalized(value: f32, line: Line) -> f32 {
    let y = (value - line.pivot) * line.scale + line.shift;
    return select(y, line.inv_std, is_not_finite(line.inv_std));
}
