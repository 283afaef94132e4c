// What the host sends per channel: mean = pivot + rest and inv_std = 1/√(var + eps), NaN where the
// channel is not finite; and the unit that they count in, so that no deviation leaves the range of
// f32: x·unit is what they belong to.

struct Centering {
    pivot: f32,
    rest: f32,
    inv_std: f32,
    unit: f32,            // a power of two; 1 as a rule
}
