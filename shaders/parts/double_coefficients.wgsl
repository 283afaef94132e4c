// The coefficients of double backward of a channel: what the host sends, for each value of an
// element. parts/double_gradient.wgsl uses them.
//
// All but u, us and q are 0 where the statistics were constants. A gradient that is not finite has
// a NaN k1 or q.

#import affine

struct DoubleCentering {
    pivot: f32,
    rest: f32,
    inv_std: f32,
    unit: f32,            // in which the three count, as in forward
    of_v: vec4<f32>,      // mean_v, mean_vh, u, q
    of_x: vec4<f32>,      // mean_dy, us, shift, k1
    products: vec4<f32>,  // k2, g_factor, v_factor, nothing
}

@group(0) @binding(4) var<storage, read> centering: array<DoubleCentering>;   // (C)
@group(0) @binding(5) var<storage, read> weight: array<f32>;                  // (C), or a dummy
@group(0) @binding(6) var<storage, read> bias: array<f32>;                    // (C), or a dummy

// Four coefficients, of each value of an element.
struct Coefficients {
    a: V,
    b: V,
    c: V,
    d: V,
}

// The coefficients of a channel.
struct DoubleCoefficients {
    affine: Affine,
    inv_std: V,
    of_v: Coefficients,
    of_x: Coefficients,
    products: Coefficients,
    factor: V,            // weight·inv_std of x as it is, in units of 1
}

#if FOUR_CHANNELS
fn coefficients_of(a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>) -> Coefficients {
    return Coefficients(
        V(a.x, b.x, c.x, d.x),
        V(a.y, b.y, c.y, d.y),
        V(a.z, b.z, c.z, d.z),
        V(a.w, b.w, c.w, d.w),
    );
}
#else
fn coefficients_of(four: vec4<f32>) -> Coefficients {
    return Coefficients(V(four.x), V(four.y), V(four.z), V(four.w));
}
#endif

fn double_coefficients_of(channel: u32) -> DoubleCoefficients {
    let affine = affine_of(channel);
    let factor = affine.scale * affine.unit;
#if FOUR_CHANNELS
    let a = centering[4u * channel];
    let b = centering[4u * channel + 1u];
    let c = centering[4u * channel + 2u];
    let d = centering[4u * channel + 3u];
    return DoubleCoefficients(
        affine,
        V(a.inv_std, b.inv_std, c.inv_std, d.inv_std),
        coefficients_of(a.of_v, b.of_v, c.of_v, d.of_v),
        coefficients_of(a.of_x, b.of_x, c.of_x, d.of_x),
        coefficients_of(a.products, b.products, c.products, d.products),
        factor,
    );
#else
    let entry = centering[channel];
    return DoubleCoefficients(
        affine,
        V(entry.inv_std),
        coefficients_of(entry.of_v),
        coefficients_of(entry.of_x),
        coefficients_of(entry.products),
        factor,
    );
#endif
}
