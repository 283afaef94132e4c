// Four elements of a lane: loaded together, and summed pairwise, in two roundings and in one order.

#import element
#import tile
#import load(x)
#import settled_element

struct Four {
    a: V,
    b: V,
    c: V,
    d: V,
}

// The address of this lane's next element; where there is none, `stand_in`. An address is chosen,
// and no load is left out: loads under a branch would wait for each other.
fn next_address(walk: ptr<function, Walk>, stand_in: u32, is_there: bool) -> u32 {
    let address = choose(stand_in, (*walk).x, is_there);
    step_walk(walk);
    return address;
}

// This lane's next four elements, of which the first is its element `at`.
fn next_four(walk: ptr<function, Walk>, stand_in: u32, at: u32, count: u32) -> Four {
    let a = next_address(walk, stand_in, at < count);
    let b = next_address(walk, stand_in, at + 1u < count);
    let c = next_address(walk, stand_in, at + 2u < count);
    let d = next_address(walk, stand_in, at + 3u < count);
    return Four(load_x(a), load_x(b), load_x(c), load_x(d));
}

fn in_units(four: Four) -> Four {
    let unit = params.unit;
    return Four(four.a * unit, four.b * unit, four.c * unit, four.d * unit);
}

// Deviations from a mean, 0 where elements are stand-ins; `at` is the number of the first.
fn counted_deviations(four: Four, mean: V, at: u32, count: u32) -> Four {
    return Four(
        difference_if(four.a, mean, at < count),
        difference_if(four.b, mean, at + 1u < count),
        difference_if(four.c, mean, at + 2u < count),
        difference_if(four.d, mean, at + 3u < count),
    );
}

fn sum_of(four: Four) -> V {
    return (four.a + four.b) + (four.c + four.d);
}

fn squares_of(four: Four) -> V {
    return (four.a * four.a + four.b * four.b) + (four.c * four.c + four.d * four.d);
}
