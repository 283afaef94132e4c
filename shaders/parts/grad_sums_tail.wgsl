// The gradient sums of the quad at the border of a padded sample. What does not count is chosen away
// by its bits, because it may be NaN.

#import tile
#import choose_element

#if ONE_CHANNEL_QUADS
// Adds the quad at the border of a padded sample.
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
