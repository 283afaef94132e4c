// Four elements of a lane, summed pairwise: in two roundings, and in one order.

#import element
#import settled_element
#import zeros

struct Four {
    a: V,
    b: V,
    c: V,
    d: V,
}

fn in_units(four: Four) -> Four {
    let unit = params.unit;
    return Four(four.a * unit, four.b * unit, four.c * unit, four.d * unit);
}

fn deviations(four: Four, mean: V) -> Four {
    return Four(
        difference(four.a, mean),
        difference(four.b, mean),
        difference(four.c, mean),
        difference(four.d, mean),
    );
}

// 0 where elements are stand-ins; `at` is the number of the first.
fn without_stand_ins(four: Four, at: u32, count: u32) -> Four {
    return Four(
        select(V(0.0), four.a, at < count),
        select(V(0.0), four.b, at + 1u < count),
        select(V(0.0), four.c, at + 2u < count),
        select(V(0.0), four.d, at + 3u < count),
    );
}

fn sum_of(four: Four) -> V {
    return (four.a + four.b) + (four.c + four.d);
}

fn squares_of(four: Four) -> V {
    return (four.a * four.a + four.b * four.b) + (four.c * four.c + four.d * four.d);
}

// 0, or a NaN where an element is not finite.
fn nothing_of(four: Four) -> V {
    let zero = zeros();
    return settled((four.a * zero.x + four.b * zero.y) + (four.c * zero.z + four.d * zero.w));
}
