// grad_input = weight·inv_std·(g − mean_dy − ((x − pivot) − rest)·projection), mean = pivot + rest.
//
// mean_dy = A/N and projection = inv_std²·B/N come from the group's sums A = Σg, B = Σ g·(x − mean); both are 0, and x is
// not read for them, where the statistics were constants. A channel that is not finite arrives with a NaN inv_std, one
// whose sums are not with a NaN mean_dy: its grad_input is NaN, but g is as forward's activation says.

struct Centering {
    pivot: f32,
    rest: f32,
    inv_std: f32,
}

struct GradCentering {
    center: Centering,
    mean_dy: f32,
    projection: f32,
}

@group(0) @binding(4) var<storage, read> centering: array<GradCentering>;   // (C)
@group(0) @binding(5) var<storage, read> weight: array<f32>;                // (C), or anything where has_weight is 0
@group(0) @binding(6) var<storage, read> bias: array<f32>;                  // (C), or anything where has_bias is 0

// What the values of a channel have in common.
struct Pull {
    line: Line,
    rest: f32,
    mean_dy: f32,
    projection: f32,
    is_lost: bool,
    lost: f32,            // what is written where it is
}

fn pull_of(channel: u32) -> Pull {
    let entry = centering[channel];
    let line = line_of(entry.center, channel);
    let sums_are_lost = is_not_finite(entry.mean_dy);
    let is_lost = sums_are_lost || is_not_finite(line.inv_std);
    let lost = select(line.inv_std, entry.mean_dy, sums_are_lost);
    return Pull(line, entry.center.rest, entry.mean_dy, entry.projection, is_lost, lost);
}

// The gradients of the input and of the residual.
fn gradients(of_channel: Pull, x_at: u32, g_at: u32, step: u32) -> vec2<f32> {
    let g = upstream(x_at, g_at, step, of_channel.line);
    var pull = 0.0;
    if (HAS_BATCH_STATISTICS) {
        let from_mean = (load_x(x_at) - of_channel.line.pivot) - of_channel.rest;
        pull = of_channel.mean_dy + from_mean * of_channel.projection;
    }
    return vec2<f32>(select(of_channel.line.scale * (g - pull), of_channel.lost, of_channel.is_lost), g);
}
