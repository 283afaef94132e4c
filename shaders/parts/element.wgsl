// An element: what an invocation loads and stores at once. A single value, or a quad: four values
// that lie next to each other, of one channel or of four neighbouring ones. Kernels are written for
// both, in V, U and B.

#if QUADS
alias V = vec4<f32>;
alias U = vec4<u32>;
alias B = vec4<bool>;
#else
alias V = f32;
alias U = u32;
alias B = bool;
#endif
