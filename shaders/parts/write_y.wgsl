// y, written by the kernel that has summed the only tile of a channel: the work of `normalize`,
// with the statistics out of workgroup memory.
//
//     affine = pivot, scale, shift of the channel        once per lane
//     for the lane's elements, four by four:
//         y = act((x·unit − pivot)·scale + shift)
//
// Why it is fast: x was read a moment ago, so it comes from a cache and only y moves. Four loads
// are in flight at once. No dispatch waits for another.

#import addresses
#import channel_coefficients
#import choose_element
#import affine
#import activation
#import store

@group(0) @binding(6) var<storage, read> weight: array<f32>;       // (C), or a dummy
@group(0) @binding(7) var<storage, read> bias: array<f32>;         // (C), or a dummy
@group(0) @binding(8) var<storage, read_write> y: array<Stored>;   // (N, C, L), laid out as x

// By the coefficients of `finish`: (pivot, rest, inv_std, whether the channel is not finite).
fn affine_of_only(walk: Walk) -> Affine {
    let own = element_coefficients(walk);
    let inv_std = choose_element(bitcast<U>(own.z), U(NOT_FINITE), own.w != V(0.0));
    return affine_from(own.x, own.y, bitcast<V>(inv_std), V(1.0), walk.channel);
}

fn write_element(at: Addresses, x: V, affine: Affine) {
    if (at.is_inside) {
        y[at.x] = stored(activated(value_of(x, at.x, affine)));
    }
}

fn write_y(start: Walk) {
    var walk = start;
    // Lanes past the last channel have no weight either.
    if (!is_inside(walk)) {
        return;
    }
    let affine = affine_of_only(walk);
    for (var i = 0u; i < params.values_per_lane; i += 4u) {
        if (!is_inside(walk)) {
            break;
        }
        let at = next_four_addresses(&walk);
        let xa = load_x(at.a.x);
        let xb = load_x(at.b.x);
        let xc = load_x(at.c.x);
        let xd = load_x(at.d.x);
        write_element(at.a, xa, affine);
        write_element(at.b, xb, affine);
        write_element(at.c, xc, affine);
        write_element(at.d, xd, affine);
    }
}
