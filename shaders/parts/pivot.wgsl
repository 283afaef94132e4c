// What a lane takes its deviations from: the mean of a quarter of its values or more.

#import choose
#import element
#import four
#import lane_stats
#import settled_element

#if COVERING
// The first value of a quad that counts; any, if none does.
fn first_of_quad(x: V, offset: u32) -> u32 {
    let counts = covered(offset);
    let bits = bitcast<U>(x);
    return choose(choose(choose(bits.w, bits.z, counts.z), bits.y, counts.y), bits.x, counts.x);
}

// The first value of four quads that counts. If none does, none of the lane's does: it is where its
// planes have no value in their last quad.
fn first_of_four(four: Four) -> f32 {
    var first = first_of_quad(four.d, four.offsets.w);
    first = choose(first, first_of_quad(four.c, four.offsets.z), any(covered(four.offsets.z)));
    first = choose(first, first_of_quad(four.b, four.offsets.y), any(covered(four.offsets.y)));
    first = choose(first, first_of_quad(four.a, four.offsets.x), any(covered(four.offsets.x)));
    return bitcast<f32>(first);
}
#endif

// The pivot of a lane of so many elements, by the first of them, in units: by four, or by eight
// quads where those at the ends of planes have few values that count.
fn pivot_of(a: Four, b: Four, elements: u32) -> V {
    // Units are a power of two: exact. Settled, so that no compiler takes differences before it
    // multiplies.
#if COVERING
    let first = V(settled_f32(first_of_four(a)));
    let of_b = sum_of(counted_deviations(b, first, 4u, elements));
    let from_first = sum_of_channel(sum_of(counted_deviations(a, first, 0u, elements)) + of_b);
    let values = f32(counted_of(a) + counted_of(b));
#else
    let first = first_of_channel(settled(a.a));
    let from_first = sum_of_channel(sum_of(counted_deviations(a, first, 0u, elements)));
    let values = VALUES_OF_CHANNEL * clamp(f32(elements), 0.0, 4.0);
#endif
    let of_first = first + from_first / max(values, 1.0);
    // A lane without values has read what is none of its own. Settled and then taken from one
    // value: a compiler may round what it forms four times in four ways.
    return first_of_channel(settled(select(of_first, V(0.0), B(values == 0.0))));
}
