// Values of a tile that one invocation of a kernel that writes goes through: one word of a mask.
const VALUES_PER_ROW: u32 = 32u;
