// e⁻ᵃ for a of 0 and above, by operations that every driver has exactly, or to an ulp.

#import element
#import settled_element

// e⁻ᵃ = scale·(1 + minus_one).
struct Exponential {
    scale: V,             // a power of two, 0 where a is above 87.68
    minus_one: V,         // e⁻ʳ − 1 with |r| at most ln 2/2
}

// e⁻ᵃ for a = high + low, with low small beside 1: a = n·ln 2 + r, and 2⁻ⁿ by its bits.
//
// ln 2 is two numbers, the first of 15 digits, so that n times it is exact. The polynomial
// r + r²·q(r) of degree 6 is within 2⁻²⁶ of e⁻ʳ − 1.
fn exponential(high: V, low: V) -> Exponential {
    let a = settled(min(high, V(88.0)));
    let n = floor(a * V(1.4426950408889634) + V(0.5));
    let near = difference(settled(n * V(0.693145751953125)), a);
    let r = difference(near + n * V(1.4286068e-6), settled(low));
    let q = V(0.041667204) + r * (V(0.008366647) + r * V(0.0013882498));
    let minus_one = r + (r * r) * (V(0.5) + r * (V(0.16666542) + r * q));
    return Exponential(bitcast<V>((U(127u) - U(n)) << U(23u)), minus_one);
}

fn value_of_exponential(e: Exponential) -> V {
    return settled(e.scale + e.scale * e.minus_one);
}
