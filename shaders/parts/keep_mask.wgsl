// The mask that forward keeps for backward: a bit per value, 1 where v is above 0.

@group(0) @binding(7) var<storage, read_write> mask: array<u32>;   // 32 values of one row each, or of 32 addresses

// The values of one invocation of a kernel that walks tiles.
fn keep_sides(walk: Walk, lane: u32, sides: u32) {
    if (walk.count > 0u) {
        let block = walk.channel >> params.columns_log2;
        mask[(walk.tile * params.mask_blocks + block) * 256u + lane] = sides;
    }
}

// Those of 32 elements from an address on.
fn keep_sides_of(element: u32, sides: u32) {
    mask[params.mask_origin + (element >> 5u)] = sides;
}
