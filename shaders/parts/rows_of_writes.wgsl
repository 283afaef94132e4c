// Rows of a kernel that writes, whose values a word of a mask holds: up to 32.
const ROWS_PER_WORD: u32 = 1u;
