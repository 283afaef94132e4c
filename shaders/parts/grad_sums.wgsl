// The gradient sums of a lane: element by element, and the quad at the border of a padded sample.

#import addresses
#import covering
#import choose_element

// The sums of a lane.
struct GradSums {
    dy: V,                // Σg
    dy_deviation: V,      // Σ g·(x − pivot)
}

// Where a value of a lane is NaN or infinite.
struct NotFinite {
    g: B,
    x: B,
}

fn add_values(sums: ptr<function, GradSums>, x: V, g: V, affine: Affine) {
    (*sums).dy += g;
    (*sums).dy_deviation += g * deviation_of(x, affine);
}

// Adds this lane's next element, the `step`th, if there is one. A quad at `stand_in`, the first of the
// lane, is loaded instead of none: so no load is under a branch, and those of four elements are
// in flight at once. Single values are too many for that.
fn add_element(
    sums: ptr<function, GradSums>,
    walk: ptr<function, Walk>,
    stand_in: Addresses,
    step: u32,
    affine: Affine,
) {
#if QUADS
    let at = next_addresses(walk, stand_in);
    let x = load_x(at.x);
#if COVERING
    // Values that do not count may be anything: those of other channels.
    let counts = covered(at.offset);
    let g = counted(upstream(x, at.x, at.g, step, affine), counts);
    (*sums).dy += g;
    (*sums).dy_deviation += counted(g * deviation_of(x, affine), counts);
#else
    let g = select(V(0.0), upstream(x, at.x, at.g, step, affine), B(at.is_inside));
    add_values(sums, x, g, affine);
#endif
#else
    if (is_inside(*walk)) {
        let x = load_x((*walk).x);
        let g = upstream(x, (*walk).x, (*walk).g, step, affine);
        add_values(sums, x, g, affine);
    }
    step_walk(walk);
#endif
}

// Of all elements of a lane, one after the other: rare.
fn not_finite_of_lane(start: Walk, affine: Affine) -> NotFinite {
    var found = NotFinite(B(false), B(false));
    var walk = start;
    for (var step = 0u; is_inside(walk); step++) {
        let x = load_x(walk.x);
        let g = upstream(x, walk.x, walk.g, step, affine);
        found.g = found.g | (is_not_finite_element(settled(g)) & counted_at(walk));
        found.x = found.x | (is_not_finite_element(settled(x)) & counted_at(walk));
        step_walk(&walk);
    }
#if TAILS
    if (owns_tail(start)) {
        let tail = tail_values(start, affine);
        found.g = found.g | is_not_finite_element(settled(tail.g));
        found.x = found.x | is_not_finite_element(settled(tail.x));
    }
#endif
    return found;
}

#if TAILS
// The quad at the border of a padded sample: 0 where a value does not count.
struct TailValues {
    g: V,
    x: V,
}

// Values that do not count are removed by a choice between bits, because they may be NaN.
fn tail_values(walk: Walk, affine: Affine) -> TailValues {
    let tail = tail_of(walk);
    let counted = counted_values(walk.tail);
    let x = load_x(tail.x);
    let g = upstream(x, tail.x, tail.g, step_of(tail), affine);
    return TailValues(
        bitcast<V>(choose_element(U(0u), bitcast<U>(g), counted)),
        bitcast<V>(choose_element(U(0u), bitcast<U>(x), counted)),
    );
}

fn add_tail(total: ptr<function, GradSums>, walk: Walk, affine: Affine) {
    let tail = tail_values(walk, affine);
    (*total).dy += tail.g * params.unit;
    (*total).dy_deviation += (tail.g * deviation_of(tail.x, affine)) * params.unit;
}
#endif
