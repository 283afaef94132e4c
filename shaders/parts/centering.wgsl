// Centering of a channel, as the host sends it: mean = pivot + rest and inv_std = 1/√(var + eps),
// NaN if the channel is not finite. They are those of x·unit. The unit keeps every deviation within
// the range of f32.

struct Centering {
    pivot: f32,
    rest: f32,
    inv_std: f32,
    unit: f32,            // a power of two; 1 as a rule
}
