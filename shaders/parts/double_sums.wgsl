// The sums of double backward over ranks: those of backward (`locals`), those with v, the cotangent
// of grad_input (`double_locals`), and what the cotangents of grad_weight and grad_bias make of the
// first. They are named here and bound by the kernel.

#import params
#import rank_weights
#import finite
#import settled

struct DoubleSums {
    dy: f32,              // A
    dy_xmu: f32,          // Σ g·(x − mean)
    v: f32,               // V
    v_xmu: f32,           // Σ v·(x − mean)
    v_p: f32,             // P
    ug_xmu: f32,          // Σ u·g·(x − mean)
    shift: f32,           // Σ (own u − u)·g
    g_not_finite: bool,
    v_not_finite: bool,
    ug_not_finite: bool,
}

// (u, q) of a rank.
fn cotangents_of(rank: u32, channel: u32) -> vec2<f32> {
    if (params.has_parameters == 0u) {
        return vec2<f32>(0.0);
    }
    return cotangents[rank * params.cotangent_stride + channel];
}

fn settled_pair(v: vec2<f32>) -> vec2<f32> {
    return vec2<f32>(settled_f32(v.x), settled_f32(v.y));
}

// (u, q) as they enter this rank: its own, or those of all ranks.
fn own_cotangents(channel: u32) -> vec2<f32> {
    if (params.merges_parameters == 0u) {
        return cotangents_of(params.rank, channel);
    }
    var sum = vec2<f32>(0.0);
    for (var rank = params.first_rank; rank < params.end_rank; rank++) {
        sum += cotangents_of(rank, channel);
    }
    return settled_pair(sum / params.divisor);
}

fn is_zero(value: f32) -> bool {
    return (bitcast<u32>(value) & 0x7fffffffu) == 0u;
}

// A channel, and its centering.
struct DoubleChannel {
    channel: u32,
    rest: f32,
    center_not_finite: bool,
}

// Adds a rank's sums.
fn add_rank(total: ptr<function, DoubleSums>, rank: u32, place: DoubleChannel, own_u: f32) {
    let sums = sums_of(rank, place.channel);
    let dy_xmu = difference_f32(sums.y, settled_f32(place.rest * sums.x));
    let not_finite = sums.z != 0.0 || sums.w != 0.0 || place.center_not_finite;
    (*total).dy += sums.x;
    (*total).dy_xmu += dy_xmu;
    (*total).g_not_finite |= not_finite;
    if (params.has_cotangent != 0u) {
        let of_v = double_locals[rank * params.rank_stride + place.channel];
        (*total).v += of_v.x;
        (*total).v_xmu += difference_f32(of_v.y, settled_f32(place.rest * of_v.x));
        (*total).v_p += of_v.z;
        (*total).v_not_finite |= of_v.w != 0.0;
    }
    var u = own_u;
    if (params.merges_parameters == 0u) {
        u = cotangents_of(rank, place.channel).x;
    }
    // Of no cotangent nothing, also where a sum is not finite.
    if (!is_zero(u)) {
        (*total).ug_xmu += u * dy_xmu;
        (*total).ug_not_finite |= not_finite;
    }
    let beyond = difference_f32(own_u, u);
    if (!is_zero(beyond)) {
        (*total).shift += beyond * sums.x;
        (*total).ug_not_finite |= not_finite;
    }
}

// The sums of some ranks; a rank without values adds nothing, whatever the others made of the
// channel.
fn sums_of_ranks(first: u32, end: u32, place: DoubleChannel, own_u: f32) -> DoubleSums {
    var total: DoubleSums;
    for (var rank = first; rank < end; rank++) {
        if (rank_weights[rank].count != 0.0) {
            add_rank(&total, rank, place, own_u);
        }
    }
    return total;
}
