// grad_input, written by the kernel that has summed the only tile of a channel: the work of the
// kernel `grad_input`, with the sums out of workgroup memory.
//
//     coefficients of the channel                        once per lane
//     for the lane's elements, four by four:
//         g          = grad_output, times the slope where the activation was not active
//         grad_input = factor·(g − (mean_dy + ((x·unit − pivot) − rest)·projection))
//
// Why it is fast: grad_output and x were read a moment ago, so they come from a cache and only
// grad_input moves. Eight loads are in flight at once. No dispatch waits for another.

#import addresses
#import channel_coefficients
#import input_gradient
#import upstream
#import store

// (N, C, L), laid out as x
@group(0) @binding(6) var<storage, read_write> grad_input: array<Stored>;

// By those of `finish`: (mean_dy, projection, nothing, whether they are not finite).
fn coefficients_of_only(walk: Walk, affine: Affine) -> GradCoefficients {
    let own = element_coefficients(walk);
    let factor = affine.scale * affine.unit;
    let not_finite = affine.not_finite | (own.w != V(0.0));
    return GradCoefficients(affine, own.x, own.y, factor, not_finite);
}

fn write_element(at: Addresses, x: V, g: V, step: u32, of_channel: GradCoefficients) {
    if (at.is_inside) {
        let before_activation = upstream_of(g, x, residual_at(at.x), at.x, step, of_channel.affine);
        grad_input[at.x] = stored(gradient_of(x, before_activation, of_channel));
    }
}

fn write_grad_input(start: Walk, affine: Affine) {
    var walk = start;
    if (!is_inside(walk)) {
        return;
    }
    let coefficients = coefficients_of_only(walk, affine);
    for (var i = 0u; i < params.values_per_lane; i += 4u) {
        if (!is_inside(walk)) {
            break;
        }
        let at = next_four_addresses(&walk);
        let xa = load_x(at.a.x);
        let ga = load_grad_output(at.a.g);
        let xb = load_x(at.b.x);
        let gb = load_grad_output(at.b.g);
        let xc = load_x(at.c.x);
        let gc = load_grad_output(at.c.g);
        let xd = load_x(at.d.x);
        let gd = load_grad_output(at.d.g);
        write_element(at.a, xa, ga, i, coefficients);
        write_element(at.b, xb, gb, i + 1u, coefficients);
        write_element(at.c, xc, gc, i + 2u, coefficients);
        write_element(at.d, xd, gd, i + 3u, coefficients);
    }
}
