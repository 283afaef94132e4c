// Where the elements of a lane lie, several of them before the first is loaded.

#import tile
#import choose

struct Spot {
    x: u32,               // address in x
    g: u32,               // address in grad_output
    is_there: bool,       // whether it is the lane's; else it is that of the first, to be loaded
}

// Where a lane stands.
fn first_spot(walk: Walk) -> Spot {
    return Spot(walk.x, walk.g, true);
}

// This lane's next element, or the first of the spots where the tile has ended.
fn next_spot(walk: ptr<function, Walk>, first: Spot) -> Spot {
    let is_there = is_inside(*walk);
    let x = choose(first.x, (*walk).x, is_there);
    let g = choose(first.g, (*walk).g, is_there);
    step_walk(walk);
    return Spot(x, g, is_there);
}
