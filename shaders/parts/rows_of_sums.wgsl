// Rows of a kernel that sums, whose values a word of a mask holds: it goes through half as many as one that writes.
const ROWS_PER_WORD: u32 = 2u;
