// No mask is kept.

fn keep_sides(walk: Walk, lane: u32, sides: u32) {}

fn keep_sides_of(element: u32, sides: u32) {}
