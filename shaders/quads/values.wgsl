// Quads of a tile that one invocation goes through.
const VALUES_PER_ROW: u32 = 16u;
