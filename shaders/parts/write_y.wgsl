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
#import choose_element
#import affine
#import activation
#import store

@group(0) @binding(6) var<storage, read> weight: array<f32>;       // (C), or a dummy
@group(0) @binding(7) var<storage, read> bias: array<f32>;         // (C), or a dummy
@group(0) @binding(8) var<storage, read_write> y: array<Stored>;   // (N, C, L), laid out as x

// By the coefficients of `finish`: (pivot, rest, inv_std, whether the channel is not finite).
fn affine_of_only(walk: Walk) -> Affine {
#if FOUR_CHANNELS
    let first = walk.tile_slot * SUMS;
    let a = entries[first];
    let b = entries[first + 1u];
    let c = entries[first + 2u];
    let d = entries[first + 3u];
    let pivot = V(a.x, b.x, c.x, d.x);
    let rest = V(a.y, b.y, c.y, d.y);
    let inv_std = U(bitcast<u32>(a.z), bitcast<u32>(b.z), bitcast<u32>(c.z), bitcast<u32>(d.z));
    let flag = V(a.w, b.w, c.w, d.w);
#else
    let entry = entries[walk.tile_slot];
    let pivot = V(entry.x);
    let rest = V(entry.y);
    let inv_std = U(bitcast<u32>(entry.z));
    let flag = V(entry.w);
#endif
    let finite_or_nan = choose_element(inv_std, U(NOT_FINITE), flag != V(0.0));
    return affine_from(pivot, rest, bitcast<V>(finite_or_nan), V(1.0), walk.channel);
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
