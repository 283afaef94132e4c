// On which side of the activation values were: forward's mask says so, a bit per value, 1 above 0.

@group(0) @binding(3) var<storage, read> mask: array<vec2<u32>>;   // (tiles, blocks, 256) of 64 values each

// The values of this invocation, its first ones in the lowest bits.
var<private> own_sides: vec2<u32>;

fn begin_sides(walk: Walk, lane: u32) {
    if (walk.count > 0u) {
        let block = walk.channel >> params.columns_log2;
        own_sides = mask[(walk.tile * params.mask_blocks + block) * 256u + lane];
    }
}

fn are_above(x: vec4<f32>, quad: u32, step: u32, line: Line) -> vec4<bool> {
    let sides = select(own_sides.x, own_sides.y, step >= 8u) >> (4u * (step & 7u));
    return (vec4<u32>(sides) & vec4<u32>(1u, 2u, 4u, 8u)) != vec4<u32>(0u);
}
