// grad_input = weight·inv_std·(g − mean_dy − ((x − pivot) − rest)·projection), mean = pivot + rest.
//
// mean_dy = A/N and projection = inv_std²·B/N come from the group's sums A = Σg, B = Σ
// g·(x − mean).

#import affine

// The coefficients of a channel.
struct GradCoefficients {
    affine: Affine,
    mean_dy: V,
    projection: V,
    factor: V,            // weight·inv_std of x as it is, in units of 1
    not_finite: B,        // whether grad_input is not finite
}

// The bits of grad_input of an element x with g before the activation.
fn gradient_of(x: V, g: V, of_channel: GradCoefficients) -> U {
#if BATCH_STATISTICS
    let deviation = difference(deviation_of(x, of_channel.affine), of_channel.affine.rest);
    let from_statistics = of_channel.mean_dy + deviation * of_channel.projection;
    // Settled, so that no compiler multiplies the factor and the projection, whose product may
    // overflow.
    let from_mean = settled(g - from_statistics);
#else
    let from_mean = g;
#endif
    return nan_where(of_channel.not_finite, bitcast<U>(of_channel.factor * from_mean));
}
