// The gradient coefficients of a channel, and what is read of x for grad_input.
//
// Both mean_dy and projection are 0, and x is not read for them, where the statistics were
// constants. A channel that is not finite arrives with a NaN inv_std, one whose sums are not with a
// NaN mean_dy: its grad_input is NaN, but g is as forward's activation says.

#import input_gradient
#import upstream

struct GradCentering {
    pivot: f32,
    rest: f32,
    inv_std: f32,
    unit: f32,            // in which the three count, as in forward
    mean_dy: f32,
    projection: f32,
}

@group(0) @binding(4) var<storage, read> centering: array<GradCentering>;   // (C)
@group(0) @binding(5) var<storage, read> weight: array<f32>;                // (C), or a dummy
@group(0) @binding(6) var<storage, read> bias: array<f32>;                  // (C), or a dummy

fn grad_coefficients_of(channel: u32) -> GradCoefficients {
#if FOUR_CHANNELS
    let a = centering[4u * channel];
    let b = centering[4u * channel + 1u];
    let c = centering[4u * channel + 2u];
    let d = centering[4u * channel + 3u];
    let mean_dy = V(a.mean_dy, b.mean_dy, c.mean_dy, d.mean_dy);
    let projection = V(a.projection, b.projection, c.projection, d.projection);
#else
    let entry = centering[channel];
    let mean_dy = V(entry.mean_dy);
    let projection = V(entry.projection);
#endif
    let affine = affine_of(channel);
    let factor = affine.scale * affine.unit;
    return GradCoefficients(
        affine,
        mean_dy,
        projection,
        factor,
        affine.not_finite | is_not_finite_element(mean_dy),
    );
}

// The element x at an address, 0 where nothing depends on it.
fn x_of_gradient(address: u32) -> V {
#if READS_X
    return load_x(address);
#else
    return V(0.0);
#endif
}
