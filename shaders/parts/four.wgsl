// Four elements of a lane: loaded together, and summed pairwise, in two roundings and in one order.

#import element
#import tile
#import load(x)
#import settled_element
#import covering

struct Four {
    a: V,
    b: V,
    c: V,
    d: V,
#if COVERING
    offsets: vec4<u32>,   // of the quads in their planes
#endif
}

// The address of this lane's next element; where there is none, `stand_in`. An address is chosen,
// and no load is left out: loads under a branch would wait for each other.
fn next_address(walk: ptr<function, Walk>, stand_in: u32, is_there: bool) -> u32 {
    let address = choose(stand_in, (*walk).x, is_there);
    step_walk(walk);
    return address;
}

#if COVERING
fn next_offset(walk: Walk, is_there: bool) -> u32 {
    return choose(BEHIND, offset_in_plane(walk.plane, walk.inner), is_there);
}
#endif

// This lane's next four elements, of which the first is its element `at`.
fn next_four(walk: ptr<function, Walk>, stand_in: u32, at: u32, count: u32) -> Four {
    var four: Four;
#if COVERING
    four.offsets.x = next_offset(*walk, at < count);
#endif
    let a = next_address(walk, stand_in, at < count);
#if COVERING
    four.offsets.y = next_offset(*walk, at + 1u < count);
#endif
    let b = next_address(walk, stand_in, at + 1u < count);
#if COVERING
    four.offsets.z = next_offset(*walk, at + 2u < count);
#endif
    let c = next_address(walk, stand_in, at + 2u < count);
#if COVERING
    four.offsets.w = next_offset(*walk, at + 3u < count);
#endif
    let d = next_address(walk, stand_in, at + 3u < count);
    four.a = load_x(a);
    four.b = load_x(b);
    four.c = load_x(c);
    four.d = load_x(d);
    return four;
}

fn in_units(four: Four) -> Four {
    var scaled = four;
    scaled.a *= params.unit;
    scaled.b *= params.unit;
    scaled.c *= params.unit;
    scaled.d *= params.unit;
    return scaled;
}

// Deviations from a mean, 0 where values do not count; `at` is the number of the first element.
fn counted_deviations(four: Four, mean: V, at: u32, count: u32) -> Four {
    var deviations = four;
#if COVERING
    deviations.a = difference_where(four.a, mean, covered(four.offsets.x));
    deviations.b = difference_where(four.b, mean, covered(four.offsets.y));
    deviations.c = difference_where(four.c, mean, covered(four.offsets.z));
    deviations.d = difference_where(four.d, mean, covered(four.offsets.w));
#else
    deviations.a = difference_if(four.a, mean, at < count);
    deviations.b = difference_if(four.b, mean, at + 1u < count);
    deviations.c = difference_if(four.c, mean, at + 2u < count);
    deviations.d = difference_if(four.d, mean, at + 3u < count);
#endif
    return deviations;
}

#if COVERING
// Values of four quads that count.
fn counted_of(four: Four) -> u32 {
    return (count_covered(four.offsets.x) + count_covered(four.offsets.y))
        + (count_covered(four.offsets.z) + count_covered(four.offsets.w));
}
#endif

fn sum_of(four: Four) -> V {
    return (four.a + four.b) + (four.c + four.d);
}

fn squares_of(four: Four) -> V {
    return (four.a * four.a + four.b * four.b) + (four.c * four.c + four.d * four.d);
}
