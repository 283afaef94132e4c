// What the host sends per channel: mean = pivot + rest and inv_std = 1/√(var + eps), NaN where the channel is not finite.

struct Centering {
    pivot: f32,
    rest: f32,
    inv_std: f32,
}
