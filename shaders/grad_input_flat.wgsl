// The gradient of the input channels first where planes are short, or of f32, and if it is wanted
// that of the residual: the formula of `grad_input`, in the order of addresses.
//
// Dispatch: one workgroup per 1024 quads of grad_input. Nothing runs next: grad_input and
// grad_residual are the result.

#import tile
#import flat
#import load(x)
#import gradient
#import store

// (N, C, L), laid out as x
@group(0) @binding(7) var<storage, read_write> grad_input: array<Stored>;
#if GRAD_RESIDUAL
// (N, C, L), laid out as x
@group(0) @binding(8) var<storage, read_write> grad_residual: array<Stored>;
#endif

// The bits of both gradients of a quad.
struct Gradients {
    of_input: U,
    of_residual: U,
}

// Those of the quad x with residual r and grad_output g, of a channel.
fn gradients_of(x: V, r: V, g: V, address: u32, channel: u32) -> Gradients {
    let coefficients = grad_coefficients_of(channel);
    let passed = upstream_of(g, x, r, address, 0u, coefficients.affine);
    return Gradients(gradient_of(x, passed, coefficients), bitcast<U>(passed));
}

fn gradients_at(place: Place, x: V, r: V, g: V) -> Gradients {
    return gradients_of(x, r, g, place.address, place.channel);
}

#if STRADDLES
// Gradients with the values of the next channel as that has them.
fn straddled(gradients: Gradients, place: Place, x: V, r: V, g: V) -> Gradients {
    if (!is_straddling(place)) {
        return gradients;
    }
    let behind = gradients_of(x, r, g, place.address, channel_behind(place));
    let is_first = of_first_channel(place);
    return Gradients(
        choose_element(behind.of_input, gradients.of_input, is_first),
        choose_element(behind.of_residual, gradients.of_residual, is_first),
    );
}
#endif

fn store(address: u32, gradients: Gradients) {
    grad_input[address] = stored(gradients.of_input);
#if GRAD_RESIDUAL
    grad_residual[address] = stored(gradients.of_residual);
#endif
}

//     for the four quads of this invocation:
//         gradients = those of `grad_input`, of the channel of its first value
//     for those that straddle two channels: gradients of the next channel behind the border
//     for all four:  grad_input, grad_residual = gradients
//
// As fast as `normalize_flat`, for the same reasons: four quads of grad_output and of x in flight,
// whole cache lines stored, two divisions per invocation.
@compute @workgroup_size(256)
fn main(
    @builtin(local_invocation_index) invocation: u32,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
) {
    let index = workgroup.x + workgroup.y * workgroups.x;
    if (!has_quads(index)) {
        return;
    }
    let a = first_place(invocation, stretch_of(index));
    if (is_past_end(a.address)) {
        return;
    }
    let b = next_place(a, a);
    let c = next_place(b, a);
    let d = next_place(c, a);
#if MASK
    begin_upstream_at(a.address);
#endif
    let ga = load_grad_output(a.address);
    let gb = load_grad_output(b.address);
    let gc = load_grad_output(c.address);
    let gd = load_grad_output(d.address);
    let xa = x_of_gradient(a.address);
    let xb = x_of_gradient(b.address);
    let xc = x_of_gradient(c.address);
    let xd = x_of_gradient(d.address);
    let ra = residual_at(a.address);
    let rb = residual_at(b.address);
    let rc = residual_at(c.address);
    let rd = residual_at(d.address);
    var of_a = gradients_at(a, xa, ra, ga);
    var of_b = gradients_at(b, xb, rb, gb);
    var of_c = gradients_at(c, xc, rc, gc);
    var of_d = gradients_at(d, xd, rd, gd);
#if STRADDLES
    of_a = straddled(of_a, a, xa, ra, ga);
    of_b = straddled(of_b, b, xb, rb, gb);
    of_c = straddled(of_c, c, xc, rc, gc);
    of_d = straddled(of_d, d, xd, rd, gd);
#endif
    store(a.address, of_a);
    store(b.address, of_b);
    store(c.address, of_c);
    store(d.address, of_d);
}
