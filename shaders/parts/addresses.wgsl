// Addresses of several elements of a lane, before the first of them is loaded: their loads are in
// flight at once, and none of them is under a branch.

#import tile
#import choose
#import covering

struct Addresses {
    x: u32,               // in x
    g: u32,               // in grad_output
    is_inside: bool,      // whether the lane has the element; else the first one stands in
#if COVERING
    offset: u32,          // of the quad in its plane
#endif
}

// Those of the lane's current element.
fn current_addresses(walk: Walk) -> Addresses {
    var at: Addresses;
    at.x = walk.x;
    at.g = walk.g;
    at.is_inside = true;
#if COVERING
    at.offset = offset_in_plane(walk.plane, walk.inner);
#endif
    return at;
}

// Those of the lane's next element, or the stand-in's where the tile has ended.
fn next_addresses(walk: ptr<function, Walk>, stand_in: Addresses) -> Addresses {
    let is_there = is_inside(*walk);
    var at = current_addresses(*walk);
    at.x = choose(stand_in.x, at.x, is_there);
    at.g = choose(stand_in.g, at.g, is_there);
    at.is_inside = is_there;
#if COVERING
    at.offset = choose(BEHIND, at.offset, is_there);
#endif
    step_walk(walk);
    return at;
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
