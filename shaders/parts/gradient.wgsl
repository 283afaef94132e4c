// grad_input = weight·inv_std·(g − mean_dy − ((x − pivot) − rest)·projection), mean = pivot + rest.
//
// mean_dy = A/N and projection = inv_std²·B/N come from the group's sums A = Σg, B = Σ g·(x − mean); both are 0, and x is
// not read, where the statistics were constants. A channel that is not finite arrives with a NaN inv_std.

struct GradCentering {
    pivot: f32,
    rest: f32,
    inv_std: f32,
    mean_dy: f32,
    projection: f32,
}

@group(0) @binding(3) var<storage, read> centering: array<GradCentering>;   // (C)
@group(0) @binding(4) var<storage, read> weight: array<f32>;                // (C), or anything where has_weight is 0

fn gradient(channel: u32, x_at: u32, g_at: u32) -> f32 {
    let center = centering[channel];
    var scale = center.inv_std;
    if (params.has_weight != 0u) {
        scale *= weight[channel];
    }
    var pull = 0.0;
    if (params.has_batch_statistics != 0u) {
        let from_mean = (load_x(x_at) - center.pivot) - center.rest;
        pull = center.mean_dy + from_mean * center.projection;
    }
    return select(scale * (load_grad_output(g_at) - pull), center.inv_std, is_not_finite(center.inv_std));
}
