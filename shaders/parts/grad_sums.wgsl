// The gradient sums of a lane: element by element, and the quad at the border of a padded sample.

#import addresses
#import choose_element
#import zeros

// The sums of a lane.
struct GradSums {
    dy: V,                // Σg
    dy_deviation: V,      // Σ g·(x − pivot)
    no_g: V,              // Σ g·0: 0, or a NaN where a g is not finite
    no_x: V,              // Σ x·0
}

// Adds x and g, and their products with one of the zeros.
fn add_values(sums: ptr<function, GradSums>, x: V, g: V, zero: f32, affine: Affine) {
    (*sums).dy += g;
    (*sums).dy_deviation += g * deviation_of(x, affine);
    (*sums).no_g += g * zero;
    (*sums).no_x += x * zero;
}

// Adds this lane's next element, the `step`th, if there is one. A quad at `stand_in`, which counts
// itself, is loaded instead of none: so no load is under a branch, and those of four elements are
// in flight at once. Single values are too many for that.
fn add_element(
    sums: ptr<function, GradSums>,
    walk: ptr<function, Walk>,
    stand_in: Addresses,
    step: u32,
    zero: f32,
    affine: Affine,
) {
#if QUADS
    let at = next_addresses(walk, stand_in);
    let x = load_x(at.x);
    let g = select(V(0.0), upstream(x, at.x, at.g, step, affine), B(at.is_inside));
    add_values(sums, x, g, zero, affine);
#else
    if (is_inside(*walk)) {
        let x = load_x((*walk).x);
        let g = upstream(x, (*walk).x, (*walk).g, step, affine);
        add_values(sums, x, g, zero, affine);
    }
    step_walk(walk);
#endif
}

#if ONE_CHANNEL_QUADS
// Adds the quad at the border of a padded sample. Values that do not count are
// removed by a choice between bits, because they may be NaN.
fn add_tail(total: ptr<function, GradSums>, walk: Walk, affine: Affine) {
    let tail = tail_of(walk);
    let counted = counted_values(walk.tail);
    let all_x = load_x(tail.x);
    let all_g = upstream(all_x, tail.x, tail.g, step_of(tail), affine);
    let x = bitcast<V>(choose_element(U(0u), bitcast<U>(all_x), counted));
    let g = bitcast<V>(choose_element(U(0u), bitcast<U>(all_g), counted));
    (*total).dy += g * params.unit;
    (*total).dy_deviation += (g * deviation_of(x, affine)) * params.unit;
    (*total).no_g += settled(g * zeros().x);
    (*total).no_x += settled(x * zeros().x);
}
#endif
