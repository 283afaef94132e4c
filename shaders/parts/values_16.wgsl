// Values of a tile that one invocation of a kernel that sums holds in registers.
const VALUES_PER_ROW: u32 = 16u;
