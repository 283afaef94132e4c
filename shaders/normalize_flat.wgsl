// The normalized, activated output channels first where planes are short, or of f32: the formula of
// `normalize`, in the order of addresses.
//
// Dispatch: one workgroup per 1024 quads of y. Nothing runs next: y is the result.

#import flat
#import load(x)
#import load(residual)
#import centering
#import affine
#import activation
#import store

@group(0) @binding(3) var<storage, read> centering: array<Centering>;   // (C)
@group(0) @binding(4) var<storage, read> weight: array<f32>;            // (C), or a dummy
@group(0) @binding(5) var<storage, read> bias: array<f32>;              // (C), or a dummy
@group(0) @binding(6) var<storage, read_write> y: array<Stored>;        // (N, C, L), laid out as x
#if KEEPS_MASK
#import mask_by_address

// 32 values to a word, half of them of one invocation
@group(0) @binding(7) var<storage, read_write> mask: array<u32>;

var<workgroup> noted: array<u32, 256>;
#endif

// The bits of v of the quad x with residual r, of the channel of its first value.
fn value_at(place: Place, x: V, r: V) -> U {
    return value_with(x, r, affine_of(place.channel));
}

#if STRADDLES
// v with the values of the next channel as that has them.
fn straddled(v: U, place: Place, x: V, r: V) -> U {
    if (!is_straddling(place)) {
        return v;
    }
    let behind = value_with(x, r, affine_of(channel_behind(place)));
    return choose_element(behind, v, of_first_channel(place));
}
#endif

// Writes y at a place and at the next three of the invocation; returns which values were active.
#if KEEPS_MASK
fn write_four(a: Place) -> u32 {
#else
fn write_four(a: Place) {
#endif
    let b = next_place(a, a);
    let c = next_place(b, a);
    let d = next_place(c, a);
    let xa = load_x(a.address);
    let xb = load_x(b.address);
    let xc = load_x(c.address);
    let xd = load_x(d.address);
    let ra = residual_at(a.address);
    let rb = residual_at(b.address);
    let rc = residual_at(c.address);
    let rd = residual_at(d.address);
    var va = value_at(a, xa, ra);
    var vb = value_at(b, xb, rb);
    var vc = value_at(c, xc, rc);
    var vd = value_at(d, xd, rd);
#if STRADDLES
    va = straddled(va, a, xa, ra);
    vb = straddled(vb, b, xb, rb);
    vc = straddled(vc, c, xc, rc);
    vd = straddled(vd, d, xd, rd);
#endif
    y[a.address] = stored(activated(va));
    y[b.address] = stored(activated(vb));
    y[c.address] = stored(activated(vc));
    y[d.address] = stored(activated(vd));
#if KEEPS_MASK
    return noted_of(is_active(va), is_active(vb), is_active(vc), is_active(vd));
#endif
}

//     for the four quads of this invocation:
//         v = (x·unit − pivot)·scale + shift + residual, of the channel of its first value
//     for those that straddle two channels: v of the next channel behind the border
//     for all four:  y = act(v), noted = noted, with four bits of v > 0
//     barrier; mask = noted of two invocations
//
// Why it is fast: the kernel is memory-bound, and a tile of a short plane has many pieces of memory
// that begin and end within a cache line. Here the stores of a workgroup fill every line that they
// touch.
// * Four loads of each are in flight before the first is used, and nothing is stored before all are.
// * An invocation divides twice, for its first channel. Coefficients come from a cache: neighbours
//   are of few channels.
// * Few quads straddle, and values of theirs alone are formed twice. Where L is a multiple of four,
//   none does, and that is an #if: a driver without branches would form all of them twice.
// * No atomics for the mask, and one barrier at the end.
@compute @workgroup_size(256)
fn main(
    @builtin(local_invocation_index) invocation: u32,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
) {
    let index = workgroup.x + workgroup.y * workgroups.x;
    let stretch = stretch_of(index);
    let first = first_place(invocation, stretch);
    let is_there = has_quads(index) && !is_past_end(first.address);
#if KEEPS_MASK
    noted[invocation] = 0u;
    if (is_there) {
        noted[invocation] = write_four(first);
    }
    workgroupBarrier();
    if (has_quads(index) && invocation < MASK_WORDS) {
        mask[params.mask_origin + stretch * MASK_WORDS + invocation] =
            noted[invocation] | (noted[invocation + MASK_WORDS] << 16u);
    }
#else
    if (is_there) {
        write_four(first);
    }
#endif
}
