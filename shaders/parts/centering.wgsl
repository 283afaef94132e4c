// What the host sends per channel, mean = pivot + rest and 1/√(var + eps), NaN where the channel is not finite; and
// what a value becomes by it.

struct Centering {
    pivot: f32,
    rest: f32,
    inv_std: f32,
}
