// The words of the tiles of every channel as three numbers: Σs and Σt of 64 bits and Σs·t of 128;
// or the ends of a range, the largest of those of the tiles.
//
// Totals are added with carries, exactly and in any order.
//
// Dispatch: one workgroup per 256/lanes_per_channel channels. The ranks merge next: on
// the host, or of a `BatchNorm` in `finalize_integers`.

#import combine
#import takes
#import choose
#import wide

// (tiles, C, 3): (s, t), (high, middle) and (low, 0), each low + 2¹⁶·high; or both ends
@group(0) @binding(1) var<storage, read> partial: array<vec4<u32>>;
// (C, 2): (Σs, Σt) and Σs·t, words from the lowest on; or both ends
@group(0) @binding(2) var<storage, read_write> local: array<vec4<u32>>;

// Vectors of words of a tile and channel.
const VECTORS: u32 = 3u;

// Of a channel.
struct Totals {
    both: vec4<u32>,      // Σs and Σt, which never carry beyond 64 bits; or both ends
    product: vec4<u32>,   // Σs·t
}

// Those of the lanes.
var<workgroup> both_of: array<vec4<u32>, 256>;
var<workgroup> product_of: array<vec4<u32>, 256>;

fn merged(a: Totals, b: Totals) -> Totals {
    let largest = max(a.both, b.both);
    return Totals(
        choose_vec4(plus(a.both, b.both), largest, vec4<bool>(params.takes == RANGE)),
        plus(a.product, b.product),
    );
}

fn totals_of(tile: u32, channel: u32) -> Totals {
    let at = (tile * params.channels + channel) * VECTORS;
    let first = partial[at];
    if (params.takes == RANGE) {
        return Totals(first, vec4<u32>(0u));
    }
    let second = partial[at + 1u];
    let third = partial[at + 2u];
    let s = of_halves(first.xy, 0u);
    let t = of_halves(first.zw, 0u);
    let upper = plus(of_halves(second.xy, 30u), of_halves(second.zw, 15u));
    return Totals(vec4<u32>(s.xy, t.xy), plus(upper, of_halves(third.xy, 0u)));
}

// Those of `count` lanes from entry `first` on with a stride.
fn merged_lanes(first: u32, count: u32, stride: u32) -> Totals {
    var all: Totals;
    for (var i = 0u; i < count; i++) {
        let at = first + i * stride;
        all = merged(all, Totals(both_of[at], product_of[at]));
    }
    return all;
}

//     every lane merges its tiles;                         barrier
//     blocks of 16 lanes: one lane merges them;            barrier
//     the first lane merges the blocks, 16 at most, and writes
//
// It reads 48 bytes per tile of up to 16,384 values once, coalesced as in `combine_stats`: its time
// is that of a dispatch.
@compute @workgroup_size(256)
fn main(
    @builtin(local_invocation_index) invocation: u32,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
) {
    let place = locate(invocation, workgroup.x + workgroup.y * workgroups.x);
    var own: Totals;
    for (var tile = place.lane; tile < place.tiles; tile += params.lanes_per_channel) {
        own = merged(own, totals_of(tile, place.channel));
    }
    let channels = 1u << params.channels_per_workgroup_log2;
    let block = min(params.lanes_per_channel, 16u);
    let blocks = params.lanes_per_channel / block;
    both_of[invocation] = own.both;
    product_of[invocation] = own.product;
    workgroupBarrier();
    // A block has the lanes with one remainder modulo `blocks`. The result replaces the sums of its
    // first lane, which no other lane reads.
    if (place.lane < blocks) {
        let of_block = merged_lanes(invocation, block, blocks * channels);
        both_of[invocation] = of_block.both;
        product_of[invocation] = of_block.product;
    }
    workgroupBarrier();
    if (place.lane == 0u && place.tiles > 0u) {
        let all = merged_lanes(place.channel_slot, blocks, channels);
        local[2u * place.channel] = all.both;
        local[2u * place.channel + 1u] = all.product;
    }
}
