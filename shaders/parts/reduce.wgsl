// Sum over the lanes of a channel, in workgroup memory and in one fixed order: sixteen by sixteen,
// then the rest.
//
//     sums[lane] = value;                       barrier
//     block of 16 lanes: one lane sums them;    barrier
//     every lane sums the blocks, 16 at most
//
// Two barriers per sum and none in a loop; a tree over 256 lanes would have eight, and reading 16
// entries in sequence costs less than three barriers. Lanes are a power of two up to 256; the sums
// of a workgroup's slots (one per channel) run at once. The order is fixed, because f32 addition is
// not associative: so the bits depend on no device. A large term, as where one value of a channel
// outweighs all others, passes at most five roundings a level.

// The lanes' terms, then, from BLOCK_SUMS on, the sums of sixteen.
var<workgroup> sums: array<vec4<f32>, 512>;

const BLOCK_SUMS: u32 = 256u;

// The sum of `count` entries, a power of two up to sixteen, from `first` on with a stride: by
// fours, pairwise.
fn sum_of_entries(first: u32, count: u32, stride: u32) -> vec4<f32> {
    var total = vec4<f32>(0.0);
    for (var i = 0u; i < count; i += 4u) {
        let at = first + i * stride;
        var pair = sums[at];
        if (count > 1u) {
            pair += sums[at + stride];
        }
        if (count > 2u) {
            pair += sums[at + 2u * stride] + sums[at + 3u * stride];
        }
        total += pair;
    }
    return total;
}

// Every lane of a slot gets the slot's sum.
fn sum_over_lanes(
    value: vec4<f32>,
    lane: u32,
    slot: u32,
    lanes: u32,
    slots_log2: u32,
) -> vec4<f32> {
    let stride = 1u << slots_log2;
    let block_lanes = min(lanes, 16u);
    let blocks = lanes / block_lanes;
    sums[lane * stride + slot] = value;
    workgroupBarrier();
    if (lane < blocks) {
        sums[BLOCK_SUMS + lane * stride + slot] =
            sum_of_entries(lane * block_lanes * stride + slot, block_lanes, stride);
    }
    workgroupBarrier();
    return sum_of_entries(BLOCK_SUMS + slot, blocks, stride);
}
