// No mask is kept.

fn keep_sides(walk: Walk, lane: u32, sides: vec2<u32>) {}

fn note_sides(sides: ptr<function, vec2<u32>>, v: vec4<f32>, step: u32) {}
