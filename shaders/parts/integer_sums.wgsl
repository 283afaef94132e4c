// Exact sums of integers of 30 bits and of their products, in words of 32 bits without a carry.
//
//     Four        Σs, Σt and the four sums of products of digits, over at most four elements
//     Halves      each of those in halves of 16 bits, added over the elements of a lane and then
//                 over lanes and the values of a quad
//
// A product of digits is below 2³⁰, so four of them fit a word. A half is below 2¹⁶, and both
// middle products share a word: over four additions, four values of a quad and 256 lanes it stays
// below 2²⁹.

#import element
#import integers

// Over four elements at most.
struct Four {
    s: U,                 // Σs
    t: U,                 // Σt
    high: U,              // Σ of the products of high digits, 2³⁰ each
    high_low: U,          // Σ of those of high digits of s and low ones of t, 2¹⁵ each
    low_high: U,          // the other way
    low: U,               // Σ of the products of low digits
}

// The sum low + 2¹⁶·high.
struct Halves {
    low: U,
    high: U,
}

// The sums of a lane.
struct LaneSums {
    s: Halves,
    t: Halves,
    high: Halves,
    middle: Halves,       // high_low + low_high
    low: Halves,
    ends: Halves,         // of a range, as `ends` says
}

fn no_four() -> Four {
    return Four(U(0u), U(0u), U(0u), U(0u), U(0u), U(0u));
}

// Adds s, t and s·t.
fn add_product(four: ptr<function, Four>, s: U, t: U) {
    let s_high = s >> U(DIGIT_BITS);
    let s_low = s & U(DIGIT);
    let t_high = t >> U(DIGIT_BITS);
    let t_low = t & U(DIGIT);
    (*four).s += s;
    (*four).t += t;
    (*four).high += s_high * t_high;
    (*four).high_low += s_high * t_low;
    (*four).low_high += s_low * t_high;
    (*four).low += s_low * t_low;
}

fn with_halves(to: Halves, sum: U) -> Halves {
    return Halves(to.low + (sum & U(0xffffu)), to.high + (sum >> U(16u)));
}

fn add_four(sums: ptr<function, LaneSums>, four: Four) {
    (*sums).s = with_halves((*sums).s, four.s);
    (*sums).t = with_halves((*sums).t, four.t);
    (*sums).high = with_halves((*sums).high, four.high);
    (*sums).middle = with_halves((*sums).middle, four.high_low);
    (*sums).middle = with_halves((*sums).middle, four.low_high);
    (*sums).low = with_halves((*sums).low, four.low);
}
