// The mask that forward keeps for backward: a bit per value, 1 where v is above 0.

@group(0) @binding(7) var<storage, read_write> mask: array<vec2<u32>>;   // (tiles, blocks, 256) of 64 values each

fn keep_sides(walk: Walk, lane: u32, sides: vec2<u32>) {
    if (walk.count > 0u) {
        let block = walk.channel >> params.columns_log2;
        mask[(walk.tile * params.mask_blocks + block) * 256u + lane] = sides;
    }
}

// Adds four values to those of an invocation.
fn note_sides(sides: ptr<function, vec2<u32>>, v: vec4<f32>, step: u32) {
    let bits = sides_of(v) << (4u * (step & 7u));
    *sides |= select(vec2<u32>(bits, 0u), vec2<u32>(0u, bits), step >= 8u);
}
