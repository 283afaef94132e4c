// Values of params.takes, the kind of the sums, which is the same for all invocations. The numbers
// are those of `Taken` in `src/plan/sums.rs`.

const RANGE: u32 = 0u;            // both ends
const SUMS_OF_INTEGERS: u32 = 1u; // Σq and Σq², or Σq, Σw and Σq·w
const RESTS: u32 = 2u;            // of what rounding took: Σq, Σr and Σq·r
const SQUARES_OF_RESTS: u32 = 3u; // Σr²
