// grad_output in another layout than x: its four values lie apart, `g_apart` elements from one to the next.

fn load_grad_output(address: u32) -> vec4<f32> {
    let next = params.g_apart;
    return vec4<f32>(
        load_single(address),
        load_single(address + next),
        load_single(address + 2u * next),
        load_single(address + 3u * next),
    );
}
