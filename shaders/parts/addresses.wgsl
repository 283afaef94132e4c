// Addresses of several elements of a lane, before the first of them is loaded: their loads are in
// flight at once, and none of them is under a branch.

#import tile
#import choose

struct Addresses {
    x: u32,               // in x
    g: u32,               // in grad_output
    is_inside: bool,      // whether the lane has the element; else the first one stands in
}

// Those of the lane's current element.
fn current_addresses(walk: Walk) -> Addresses {
    return Addresses(walk.x, walk.g, true);
}

// Those of the lane's next element, or the stand-in's where the tile has ended.
fn next_addresses(walk: ptr<function, Walk>, stand_in: Addresses) -> Addresses {
    let is_there = is_inside(*walk);
    let x = choose(stand_in.x, (*walk).x, is_there);
    let g = choose(stand_in.g, (*walk).g, is_there);
    step_walk(walk);
    return Addresses(x, g, is_there);
}

struct FourAddresses {
    a: Addresses,
    b: Addresses,
    c: Addresses,
    d: Addresses,
}

// Those of the lane's next four elements, of which there is one at least: it stands in.
fn next_four_addresses(walk: ptr<function, Walk>) -> FourAddresses {
    let stand_in = current_addresses(*walk);
    let a = next_addresses(walk, stand_in);
    let b = next_addresses(walk, stand_in);
    let c = next_addresses(walk, stand_in);
    let d = next_addresses(walk, stand_in);
    return FourAddresses(a, b, c, d);
}
