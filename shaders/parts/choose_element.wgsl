// `choose` for elements.

#import element
#import choose

fn choose_element(no: U, yes: U, is_yes: B) -> U {
#if QUADS
    return choose_vec4(no, yes, is_yes);
#else
    return choose(no, yes, is_yes);
#endif
}
