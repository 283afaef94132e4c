// `select` for integers, which GLSL has from 4.50 on only.

#if GLSL_430
fn choose(no: u32, yes: u32, is_yes: bool) -> u32 {
    return no ^ ((no ^ yes) & (0u - u32(is_yes)));
}

fn choose_vec4(no: vec4<u32>, yes: vec4<u32>, is_yes: vec4<bool>) -> vec4<u32> {
    return no ^ ((no ^ yes) & (vec4<u32>(0u) - vec4<u32>(is_yes)));
}
#else
fn choose(no: u32, yes: u32, is_yes: bool) -> u32 {
    return select(no, yes, is_yes);
}

fn choose_vec4(no: vec4<u32>, yes: vec4<u32>, is_yes: vec4<bool>) -> vec4<u32> {
    return select(no, yes, is_yes);
}
#endif
